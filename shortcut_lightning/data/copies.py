"""What the verbs `protect` and `purify` do: a folder of photographs in, changed copies out.

How a picture of another size than the model's is changed is said in `photographs.py`; the side is
`data.resolution` or the model's own. Everything is measured on the files as written.
"""

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from shortcut_lightning.attacks.base import NoAttack
from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.batch import Example
from shortcut_lightning.cluster import InProcess, Pool
from shortcut_lightning.data import loading, stages
from shortcut_lightning.data.copy_records import Begun, cautions, plain, recipe
from shortcut_lightning.data.datamodule import PersonalizationDataModule
from shortcut_lightning.files import folders
from shortcut_lightning.files.atomic import atomic, write_text
from shortcut_lightning.files.cache import Cache, OneProcess
from shortcut_lightning.files.colour import profile_of_copy
from shortcut_lightning.files.contents import look_into
from shortcut_lightning.files.images import load_image, load_images, open_image, write_png
from shortcut_lightning.files.names import shown
from shortcut_lightning.metrics.fidelity import Fidelity, fidelity
from shortcut_lightning.photographs import for_model, protected_copy, purified_copy, shrunk
from shortcut_lightning.ranges import Quality, ranged
from shortcut_lightning.report.pictures import Row, sheet, to_pil

# In a folder of their own: no one should train on the contact sheet by mistake.
SHEET, MEASURED = "measured/contact_sheet.png", "measured/measured.json"
_ORIENTATION = 0x0112  # EXIF tag; copies are written upright
SUFFIX = {"png": ".png", "jpeg": ".jpg"}


@ranged
@dataclass(frozen=True)
class Copies:
    """How copies are written.

    Args:
        output: Folder that receives them, under the photographs' names.
        format: `png` keeps every value, `jpeg` is what photographs are published as.
        quality: Of JPEG, 1 to 95; colour is kept at full resolution.
        metadata: Whether camera, place and time (EXIF) are kept or stripped. Copies are in
            sRGB, and say so by a profile where the photograph has one.
        overwrite: Allow names that exist in `output`.
    """

    output: str
    format: Literal["png", "jpeg"] = "png"
    quality: Quality = 95
    metadata: Literal["strip", "keep"] = "strip"
    overwrite: bool = False

    def __post_init__(self) -> None:
        if not self.output:
            raise ValueError("--output is empty; give a folder for the copies.")
        if not 1 <= self.quality <= 95:
            raise ValueError(f"--quality is {self.quality}; it must be from 1 to 95.")

    def targets(
        self, photographs: Sequence[Path], root: Path, begun: Begun | None = None
    ) -> list[Path]:
        """Where each copy goes, as each photograph lies in the folder `root`. Raises ValueError
        before two would share a name, or one would replace a file that is not one of `begun`."""
        folder, suffix = Path(self.output).expanduser(), SUFFIX[self.format]
        alike = Counter(path.with_suffix("") for path in photographs)  # a.jpg and a.heic
        wanted = [
            folder / path.relative_to(root).parent / ((path.stem if alone else path.name) + suffix)
            for path in photographs
            for alone in (alike[path.with_suffix("")] == 1,)
        ]
        twice = sorted({path.name for path in wanted if wanted.count(path) > 1})
        if twice:
            raise ValueError(
                f"Two photographs would both be written as {twice[0]} (--format {self.format}); "
                "rename one of them."
            )
        if any(
            path.resolve() == photograph.resolve() for path in wanted for photograph in photographs
        ):
            raise ValueError(
                f"--output {self.output} is the folder of the photographs; give another."
            )
        own = {
            target
            for target, original in zip(wanted, photographs, strict=True)
            if begun and begun.finished(target, original)
        }
        foreign = [each for each in (*wanted, folder / MEASURED) if each not in own]
        there = [path.name for path in foreign if path.exists()]
        if there and not self.overwrite:
            raise ValueError(
                f"{folder} already holds {there[0]}{' and more' if len(there) > 1 else ''}; give "
                "another --output, or --overwrite true."
            )
        return wanted

    def write(self, image: Tensor, original: Path, target: Path, begun: Begun) -> None:
        """Writes (3, H, W) in [0, 1] with what is kept of the original's metadata."""
        settings: dict[str, Any] = {}
        with open_image(original) as opened:
            if profile := profile_of_copy(opened):
                settings["icc_profile"] = profile
            if self.metadata == "keep":
                exif = opened.getexif()
                if _ORIENTATION in exif:
                    exif[_ORIENTATION] = 1
                settings["exif"] = exif
        if self.format == "jpeg":
            settings |= {"quality": self.quality, "subsampling": 0}
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic(target) as half:
            to_pil(image).save(half, self.format.upper(), **settings)
            begun.note(target, original, half)


class Measured(dict[str, Fidelity]):
    """File name -> how far the written copy is from the photograph."""

    budget: float = math.inf  # in /255
    left_out: dict[str, str]  # what lies in the folder and has no copy -> why
    notes: list[str]  # what whoever trusts the copies has to know

    def __init__(self) -> None:
        super().__init__()
        self.left_out, self.notes = {}, []

    def rows(self) -> list[dict[str, Any]]:
        """Plain types for JSON; an infinite ratio is null."""
        return [plain(name, fidelity) for name, fidelity in self.items()]

    def table(self) -> str:
        """The same for people, and a warning where the written bytes left the budget."""
        width = max(map(len, self), default=0)
        lines = [f"{'':{width}}  L-inf /255   PSNR dB    SSIM"]
        lines += [
            f"{name:{width}}  {f.linf_255:10.1f}  {f.psnr:8.2f}  {f.ssim:6.4f}"
            for name, f in self.items()
        ]
        worst = max((f.linf_255 for f in self.values()), default=0.0)
        if worst > self.budget + 0.01:
            lines.append(
                f"Saving as JPEG changed values by up to {worst:.0f}/255, beyond the budget of "
                f"{self.budget:g}; --format png keeps it."
            )
        if self.left_out:
            lines.append(f"No copy was made of: {folders.told(self.left_out)}.")
        lines += self.notes
        return "\n".join(lines)


def protect_folder(
    data: PersonalizationDataModule,
    backbone: Backbone,
    device: torch.device,
    copies: Copies,
    model_name: str = "",
    pool: Pool = InProcess(),  # noqa: B008
) -> Measured:
    """Perturbs the photographs of `data.instance_data_dir` by `data.attack` and writes copies, and
    beside them `measured/` with a contact sheet and the numbers. One photograph is enough. `pool`
    computes the perturbations."""
    if isinstance(data.attack, NoAttack):
        raise ValueError(
            "data.attack is not set, so there is nothing to protect with; for example "
            "--data.attack configs/attacks/photoguard_encoder.yaml."
        )
    if data.attack_share < 1:
        raise ValueError(
            f"data.attack_share is {data.attack_share:g}, and `protect` protects each photograph "
            "of the folder. Leave it out, or take pictures out of the folder."
        )
    work = _Work("protect", data, data.attack, backbone, copies, model_name)
    changed = stages.perturb(
        work.small, data.attack, backbone, work.cache, device, data.sample_batch_size, pool=pool
    )

    def copy(photograph: Tensor, number: int) -> Tensor:
        change = changed[number].image - work.small[number].image
        return protected_copy(photograph, change, data.attack.epsilon)

    measured = work.write(copy)
    measured.budget = data.attack.epsilon
    return measured


def purify_folder(
    data: PersonalizationDataModule,
    backbone: Backbone,
    device: torch.device,
    copies: Copies,
    model_name: str = "",
    pool: Pool = InProcess(),  # noqa: B008
) -> Measured:
    """Cleans the photographs of `data.instance_data_dir` by `data.purifiers`; else as above. The
    measures compare with what was given, which is the protected picture."""
    if not data.purifiers:
        raise ValueError(
            "data.purifiers is empty, so there is nothing to purify with; for example "
            "--data.purifiers configs/purifiers/jpeg.yaml."
        )
    work = _Work("purify", data, list(data.purifiers), backbone, copies, model_name)
    cleaned = stages.purify(
        work.small, data.purifiers, backbone, work.cache, device, data.sample_batch_size, pool=pool
    )
    return work.write(lambda photograph, number: purified_copy(photograph, cleaned[number].image))


class _Work:
    """The photographs of a folder at the model's resolution, and where their copies go."""

    def __init__(
        self,
        verb: str,
        data: PersonalizationDataModule,
        stages: Any,
        backbone: Backbone,
        copies: Copies,
        model_name: str,
    ) -> None:
        self.verb, self.cache = verb, Cache(data.cache_dir)
        folder, _ = loading.subject_folders(
            data.instance_data_dir, "", data.cache_dir, OneProcess()
        )
        self.folder = folder
        found = folders.read_folder(folder, "instance_data_dir", data.use_captions, data.recursive)
        self.paths = [entry.path for entry in found]
        self.recursive = data.recursive
        output = Path(copies.output).expanduser().resolve()
        if data.recursive and output.is_relative_to(folder.resolve()):
            raise ValueError(
                f"--output {copies.output} lies in the folder of the photographs, where "
                "data.recursive would take the copies for photographs; give another."
            )
        self.side = side = data.resolution or backbone.resolution
        self.made = recipe(verb, stages, backbone, model_name, side, copies)
        self.begun = Begun(Path(copies.output).expanduser(), self.made)
        self.copies, self.targets = copies, copies.targets(self.paths, folder, self.begun)
        self.larger = 0

        def prepared(image: Tensor) -> Tensor:
            shorter, longer = sorted(image.shape[-2:])
            self.larger += shorter > side or 0 < backbone.longest < longer
            return for_model(image, backbone, side)

        images = load_images(self.paths, prepared)
        captions = [data.prompts.caption(entry.text) for entry in found]
        self.small = [
            Example(image, caption, entry.name)
            for image, caption, entry in zip(images, captions, found, strict=True)
        ]

    def write(self, copy: Any) -> Measured:
        """`copy` makes the copy of photograph number i in full size. They are read one by one."""
        measured, rows = Measured(), []
        measured.left_out = look_into(self.folder, self.recursive).left_out
        folder = Path(self.copies.output).expanduser()
        for number, (path, target) in enumerate(zip(self.paths, self.targets, strict=True)):
            photograph = load_image(path)
            if not self.begun.finished(target, path):
                self.copies.write(copy(photograph, number), path, target, self.begun)
            written = load_image(target)
            name = shown(target.relative_to(folder))
            measured[name] = fidelity(written, photograph)
            difference = ((written - photograph) * 8 + 0.5).clamp(0, 1)
            pictures = [_thumbnail(each) for each in (photograph, written, difference)]
            rows.append(Row(name, [[picture] for picture in pictures]))
        name = self.made["model"]["name"]
        measured.notes = cautions(self.verb, name, self.side, self.larger, len(self.paths))
        if self.cache.found:
            measured.notes.append(
                f"The {' and '.join(self.cache.found)} stage was found in the cache, made before "
                "of the same pictures with the same settings, model and seed."
            )
        (folder / SHEET).parent.mkdir(exist_ok=True)
        of = f"copy (against {name})" if self.verb == "protect" else "copy"
        write_png(sheet(rows, ["given", of, "difference x 8"], side=192), folder / SHEET)
        facts = {"recipe": self.made, "notes": measured.notes, "copies": measured.rows()}
        write_text(folder / MEASURED, json.dumps(facts, indent=2) + "\n")
        self.begun.end()
        return measured


def _thumbnail(image: Tensor, side: int = 384) -> Tensor:
    """The middle square, at most `side` pixels."""
    shorter = min(image.shape[-2:])
    top, left = ((length - shorter) // 2 for length in image.shape[-2:])
    square = image[..., top : top + shorter, left : left + shorter]
    return shrunk(square, side, 1)
