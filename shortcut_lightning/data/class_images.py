"""Class images for prior preservation, made by the model itself (DreamBooth, arXiv 2208.12242).

Image k has a seed of its own, whatever the batch size, the number of processes and the images that
were there before. So an interrupted run continues where it was and more images can be added later.
"""

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from tqdm import tqdm

from shortcut_lightning import draws
from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.batch import Example
from shortcut_lightning.data.buckets import Bucket, class_sizes, nearest
from shortcut_lightning.files.cache import alone, everywhere, key_of, together, writing
from shortcut_lightning.files.contents import Contents, look_into
from shortcut_lightning.files.folders import name_left_out
from shortcut_lightning.files.images import load_images, read_notes, save_image, upright_size
from shortcut_lightning.files.names import shown
from shortcut_lightning.freezing import frozen, on_device

log = logging.getLogger(__name__)

_PROMPT, _MODEL = "shortcut_lightning prompt", "shortcut_lightning model"  # notes in the files


def class_image_folder(
    given: str, cache: Path, prompt: str, backbone: Backbone, precision: str
) -> Path:
    """Where class images are kept: the folder `given`, else one in the cache for this prompt, model
    and precision."""
    if given:
        return Path(given).expanduser()
    key = key_of(prompt=prompt, model=backbone.fingerprint(), precision=precision)
    return cache / "class-images" / key


_MADE = re.compile(r"class-\d{5,}(-\d+x\d+)?\.png")


def by_user(pictures: Iterable[Path]) -> list[Path]:
    """Those of a folder of class images that no model of a run has made."""
    return [path for path in pictures if not _MADE.fullmatch(path.name)]


def class_image_paths(folder: Path, count: int, photographs: Sequence[Bucket] = ()) -> list[Path]:
    """The `count` files to train on: first what the user put there, then `class-<k>.png`. Beside
    `photographs` in buckets, as many as their buckets need of each, `class-<k>-<w>x<h>.png`."""
    found = look_into(folder, None) if folder.is_dir() else Contents([], {})
    if found.left_out:
        where = f"{shown(folder)} (data.class_data_dir)"
        name_left_out(where, tuple(found.left_out.items()))
    given = by_user(found.pictures)
    if photographs:
        used, given = list(dict.fromkeys(photographs)), given[:count]
        there = [nearest(used, *upright_size(path)) for path in given]
        missing = class_sizes(photographs, count, there)
        names = [f"class-{k:05d}-{each.width}x{each.height}.png" for k, each in enumerate(missing)]
        return [*given, *(folder / name for name in names)]
    made = [folder / f"class-{number:05d}.png" for number in range(count - len(given))]
    return (given + made)[:count]


def made_class_images(
    given: str,
    cache: Path,
    prompt: str,
    count: int,
    backbone: Backbone,
    trainer: Trainer,
    batch_size: int,
    photographs: Sequence[Bucket] = (),
) -> list[Path]:
    """The `count` files to train on, of which each rank has made its share of what was missing;
    `photographs` as in `class_image_paths`.

    Raises ValueError where the folder `given` holds some of another prompt.
    """
    strategy = trainer.strategy
    folder = class_image_folder(given, cache, prompt, backbone, str(trainer.precision))
    paths = class_image_paths(folder, count, photographs)
    if given:
        together(lambda: check_made_before(paths, prompt, backbone), strategy)
    strategy.barrier("class images listed")

    def make() -> None:
        with trainer.precision_plugin.forward_context():
            make_class_images(
                paths,
                prompt,
                backbone,
                strategy.root_device,
                batch_size=batch_size,
                rank=trainer.global_rank,
                world_size=trainer.world_size,
            )

    everywhere(make, strategy, workers=trainer.world_size)
    return paths


def class_examples(
    paths: list[Path], prompt: str, prepare: Callable[[Tensor], Tensor]
) -> list[Example]:
    """The class images of some files, each prepared, with the class prompt."""
    return [
        Example(image, prompt, shown(path.name))
        for image, path in zip(load_images(paths, prepare), paths, strict=True)
    ]


def make_class_images(
    paths: list[Path],
    prompt: str,
    backbone: Backbone,
    device: torch.device,
    *,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
) -> None:
    """Generates this rank's share of the `paths` that do not exist yet; each carries its prompt and
    model. Other ranks may be at work
    in the same folder: each path has one rank that makes it, known without looking. Other runs wait
    for the same rank of this one."""
    share = paths[rank::world_size]
    if _missing(share):
        with alone(share[-1].parent / f"share-{rank}-of-{world_size}"):
            _make(_missing(share), prompt, backbone, device, batch_size, quiet=rank > 0)


def check_made_before(paths: list[Path], prompt: str, backbone: Backbone) -> None:
    """Looks at the class images of a user's folder that this program made before, for whatever
    prompt. Those of another model, and those that carry no note of their prompt, as older versions
    made them, are used, and the log says so.

    Raises ValueError for those of another prompt.
    """
    made = [path for path in paths if path.name.startswith("class-") and path.exists()]
    notes = [read_notes(path) for path in made]
    prompts = Counter(note.get(_PROMPT, "") for note in notes)
    where = f"{shown(paths[0].parent)} (data.class_data_dir)" if paths else ""
    others = [said for said in prompts if said not in ("", prompt)]
    if others:
        raise ValueError(
            f"{prompts[others[0]]} class images in {where} were made for the prompt "
            f"{others[0]!r}, and this run wants {prompt!r}: give another folder, leave it empty "
            "for the cache, or delete the files class-*.png in it."
        )
    if prompts[""]:
        log.warning(
            "%d class images in %s do not say which prompt and model they were made with; they are "
            "used as if made for this run's %r.",
            prompts[""],
            where,
            prompt,
        )
    model = backbone.fingerprint()
    foreign = sum(note.get(_MODEL, model) != model for note in notes)
    if foreign:
        log.warning("%d class images in %s were made by another model.", foreign, where)


def _missing(paths: list[Path]) -> list[Path]:
    return [path for path in paths if not path.exists()]


def _make(
    missing: list[Path],
    prompt: str,
    backbone: Backbone,
    device: torch.device,
    batch_size: int,
    quiet: bool,
) -> None:
    notes = {_PROMPT: prompt, _MODEL: backbone.fingerprint()}
    bar = tqdm(total=len(missing), desc="Class images", unit="image", disable=quiet)
    sizes = dict.fromkeys(map(_size, missing))
    groups = [[path for path in missing if _size(path) == size] for size in sizes]
    chunks = [g[i : i + batch_size] for g in groups for i in range(0, len(g), batch_size)]
    with on_device(backbone, device), frozen(backbone), torch.no_grad(), bar:
        for chunk in chunks:
            seeds, size = [_seed(path) for path in chunk], _size(chunk[0])
            images = backbone.sample([prompt] * len(chunk), seeds=seeds, size=size)
            with writing(chunk[0].parent):
                for image, path in zip(images, chunk, strict=True):
                    save_image(image, path, notes)
            bar.update(len(chunk))


def _size(path: Path) -> tuple[int, int] | None:
    """(H, W) by the file's name; None for the model's own."""
    _, _, size = path.stem.removeprefix("class-").partition("-")
    if not size:
        return None
    width, height = map(int, size.split("x"))
    return height, width


def _seed(path: Path) -> int:
    """By the number in the file's name; independent of the run's seed, so that runs share them."""
    number = int(path.stem.split("-")[1])
    return draws.generator(0, "class image", number).initial_seed()
