"""Protected pictures beside their clean originals, to learn from and to judge by.

    python -m shortcut_lightning.screening.pictures runs/protected --photographs FOLDER

Every attack at every radius, each attack on people of its own, so that leaving one out leaves its
people out; what is finished is kept, and the same command goes on.
"""

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jsonargparse import ArgumentParser, auto_cli
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from shortcut_lightning import draws, presets
from shortcut_lightning.concepts.pixels import to_tensor
from shortcut_lightning.files.atomic import atomic
from shortcut_lightning.files.folders import list_images
from shortcut_lightning.files.images import load_image, resize_shorter_side, round_to_8_bits
from shortcut_lightning.pocket import world

if TYPE_CHECKING:
    from shortcut_lightning.attacks import Attack
    from shortcut_lightning.backbones.base import Backbone

ATTACKS = (
    "photoguard_encoder",
    "sds",
    "advdm",
    "mist",
    "glaze",
    "caat",
    "aspl",
    "sdst",
    "fsmg",
    "simac",
    "metacloak",
    "easpl",
    "photoguard_diffusion",
    "adaptive_code_sr",
    "adaptive_tvm",
)
RADII = (4, 8, 11, 16)  # in /255
_CHEAP = ("photoguard_encoder", "sds", "advdm", "glaze")  # made elsewhere than at home, too
_ELSEWHERE = (
    ("photographs", 128, "pocket"),
    ("world", 64, "pocket-flow"),
    ("sample", 128, "pocket"),
    ("world", 128, "pocket"),
)
_COUNT = {64: 4, 128: 2, 256: 1}  # pictures of a set, by their side
GENERATED = "generated.safetensors"
_STEPS, _GUIDANCE = 25, 4.0  # of sampling, as on the card of the pocket
_FIRST_SEED = 730_000  # of the world; the house's subjects have small numbers
_PERSON, _PHOTOGRAPH = "a photo of sks person", "a photo"


class Made(NamedTuple):
    """What is made in one go; its fields are the name of its file."""

    round: int
    source: str  # "world"; "sample", scikit-learn's two photographs; or "photographs"
    side: int  # in pixels
    family: str  # of the model attacked
    attack: str  # name of a preset of the pocket
    epsilon: int  # in /255

    @property
    def name(self) -> str:
        """Of its file."""
        return "-".join(map(str, self)) + ".safetensors"


def plan(rounds: int, photographs: bool, elsewhere: bool = True) -> Iterator[Made]:
    """All that is to be made, what says most first: half of the radii, elsewhere, the others."""
    for number in range(rounds):
        yield from _at_home(number, RADII[1::2])
        for source, side, family in _ELSEWHERE if elsewhere else ():
            for attack in _CHEAP if photographs or source != "photographs" else ():
                for epsilon in RADII[1::2]:
                    yield Made(number, source, side, family, attack, epsilon)
        yield from _at_home(number, RADII[::2])


def _at_home(number: int, radii: Sequence[int]) -> Iterator[Made]:
    for attack in ATTACKS:
        for epsilon in radii:
            if not attack.startswith("adaptive") or epsilon == 16:
                yield Made(number, "world", 64, "pocket", attack, epsilon)


def make(
    folder: str,
    photographs: str = "",
    rounds: int = 1,
    shard: str = "1/1",
    elsewhere: bool = True,
) -> None:
    """Writes a file for each attack, radius and kind of picture: `clean` and `protected`, (N, 3, H,
    W) uint8, with what they are in its metadata.

    Args:
        folder: Where; files that are there are not made again.
        photographs: Folder of photographs, with subfolders, that the card alone is measured on.
        rounds: How often, each on other people. A round is some 12 core-minutes.
        shard: `1/2` makes every second file, from the first.
        elsewhere: Also on larger pictures, photographs and the other family; `screening.remover`
            reads the world's small ones on `pocket` alone.

    Raises ValueError for another form of `shard`, or a folder of photographs without any.
    """
    part, _, parts = shard.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise ValueError(f"shard is {shard!r}; give a part and their number, such as 1/2.")
    root = Path(folder).expanduser()
    root.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    from shortcut_lightning import backbones

    models: dict[str, Backbone] = {}
    for number, made in enumerate(plan(rounds, bool(photographs), elsewhere)):
        file = root / made.name
        mine = number % int(parts) == int(part) - 1
        if file.exists() or not mine:
            continue
        if made.family not in models:
            models[made.family] = backbones.load(made.family)
        _write(made, file, models[made.family], photographs)
    generate(folder)


def generate(folder: str) -> None:
    """Writes `generated.safetensors` where it is missing: people whom both families paint, from
    captions of the world, `training` and `card`, (N, 3, 64, 64) uint8."""
    file = Path(folder).expanduser() / GENERATED
    if file.exists():
        return
    from shortcut_lightning import backbones

    parts: dict[str, list[Tensor]] = {"training": [], "card": []}
    for family, count in (("pocket", 24), ("pocket-flow", 8)):
        model = backbones.load(family)
        for part, seed in (("training", _FIRST_SEED - 2), ("card", _FIRST_SEED - 1)):
            captions = [world.draw(seed, i, quality="clean").caption for i in range(count)]
            for start in range(0, count, 8):
                some = captions[start : start + 8]
                seeds = range(start, start + len(some))
                made = model.sample(
                    some, seeds=list(seeds), num_inference_steps=_STEPS, guidance_scale=_GUIDANCE
                )
                parts[part].append(_bytes(made))
    with atomic(file) as half:
        save_file({name: torch.cat(made) for name, made in parts.items()}, half)


def _write(made: Made, file: Path, model: "Backbone", photographs: str) -> None:
    attack = attack_of(made.attack, made.epsilon)
    clean = originals(made, attack.whole_set, photographs)
    prompts = [_PERSON if made.source == "world" else _PHOTOGRAPH] * len(clean)
    start = time.process_time()
    chance = draws.generator(0, f"screening {made.name}", 0)
    changed = attack(clean, model, prompts, generator=chance)
    about = {**made._asdict(), "seconds": round(time.process_time() - start, 1)}
    levels = {"clean": _bytes(clean), "protected": _bytes(changed)}
    with atomic(file) as half:
        save_file(levels, half, metadata={"made": json.dumps(about)})


def attack_of(preset: str, epsilon: int) -> "Attack":
    """The pocket's preset of an attack with another radius, in /255."""

    from shortcut_lightning.attacks import Attack

    attack: Attack = of_preset(f"pocket/{preset}", "attack", Attack, epsilon=epsilon)
    return attack


def of_preset(name: str, option: str, kind: Any, **changes: Any) -> Any:
    """What the preset of an option makes, a `kind`, with arguments of it changed."""

    def given(made: Any) -> Any:
        return made

    given.__annotations__["made"] = kind
    parser = ArgumentParser(exit_on_error=False)
    parser.add_function_arguments(given, sub_configs=True)  # names of files within files, too
    words = [f"--made.{key}={value}" for key, value in changes.items()]
    read = parser.parse_args([f"--made={presets.find(name, option)}", *words])
    return given(**parser.instantiate(read))


def files_of(folder: str, kinds: str = "*-*-*-*-*-*") -> list[Path]:
    """What `make` has written there, of those kinds. Raises ValueError where there is nothing."""
    if found := sorted(Path(folder).expanduser().glob(f"{kinds}.safetensors")):
        return found
    raise ValueError(
        f"No protected pictures in {folder}; make them: python -m "
        "shortcut_lightning.screening.pictures FOLDER"
    )


def read(file: Path) -> tuple[Made, dict[str, Tensor]]:
    """What a file of `make` is, and its levels."""
    with safe_open(file, "pt") as opened:
        about = json.loads(opened.metadata()["made"])
    about.pop("seconds")
    return Made(**about), load_file(file)


def originals(made: Made, one_person: bool, photographs: str) -> Tensor:
    """(N, 3, side, side): the same for every radius of an attack, other ones in each round."""
    if made.source == "world":
        seed = _FIRST_SEED + 100 * made.round + _number(made)
        return drawn(seed, _COUNT[made.side], made.side, views=4 if one_person else 1)
    everything = photographs_of(photographs if made.source == "photographs" else "")
    chance = np.random.default_rng([made.round, _number(made), made.side])
    order = chance.permutation(len(everything)).tolist()
    chosen = [order[index % len(order)] for index in range(_COUNT[made.side])]
    return torch.stack([cut(everything[index], made.side, chance) for index in chosen])


def drawn(seed: int, count: int, side: int, views: int = 1, quality: str = "clean") -> Tensor:
    """(count, 3, side, side) people of the pocket's world."""
    pictures = [world.draw(seed, i, views, quality, side).image for i in range(count)]
    return torch.stack([to_tensor(np.asarray(picture)) for picture in pictures])


def cut(photograph: Tensor, side: int, chance: np.random.Generator) -> Tensor:
    """A square of a photograph whose shorter side is made one to three of the square's."""
    least = min(photograph.shape[-2:])
    shorter = round(side * float(chance.uniform(1, min(3, max(1, least / side)))))
    image = resize_shorter_side(photograph, shorter)
    top, left = (int(chance.integers(length - side + 1)) for length in image.shape[-2:])
    return round_to_8_bits(image[:, top : top + side, left : left + side])


def _number(made: Made) -> int:
    """Of what shares its pictures: an attack on a family at one size."""
    place = [64, 128, 256].index(made.side) + 3 * (made.family != "pocket")
    return ATTACKS.index(made.attack) + len(ATTACKS) * place


def photographs_of(folder: str) -> Sequence[Tensor]:
    """All of a folder with its subfolders, (3, H, W) each; "" for scikit-learn's two."""
    if folder:
        return [load_image(path) for path in list_images(Path(folder), "photographs", True)]
    from sklearn.datasets import load_sample_images

    return [to_tensor(picture) for picture in load_sample_images().images]


def _bytes(images: Tensor) -> Tensor:
    return (images * 255).round().to(torch.uint8).contiguous()


if __name__ == "__main__":
    auto_cli(make)
