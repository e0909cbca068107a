"""A collection to audit on: images of the procedural world, or of a folder, split at random.

python -m shortcut_lightning.audit.collection --output FOLDER [--source FOLDER] ...
"""

import sys
from pathlib import Path
from typing import Literal

import torch

from shortcut_lightning.audit.splits import Split, split
from shortcut_lightning.membership.pictures import Picture, picture, read_pictures


def make_collection(
    output: str,
    source: str = "",
    n_members: int = 60,
    n_nonmembers: int = 60,
    shadow: Literal["same", "disjoint"] = "disjoint",
    seed: int = 0,
    world_seed: int = 0,
    resolution: int = 512,
) -> Split:
    """Writes `members`, `nonmembers`, `shadow_members` and `shadow_nonmembers`, ready for `fit` and
    `audit`, and `split.json`.

    Args:
        output: Where to.
        source: Folder of captioned images; empty for newly drawn ones of the procedural world.
        n_members: Images the target learns, and as many the shadow.
        n_nonmembers: Images that neither learns, for each of them.
        shadow: "disjoint" takes other images for the shadow, "same" the target's, drawn anew.
        seed: Of the split.
        world_seed: Of the images that are drawn; several splits of the same ones share it.
        resolution: Side at which copies among the images of a folder are looked for.

    Raises ValueError for a bad folder, too few images, and an output that holds another split.
    """
    if source:
        pictures, _ = read_pictures(Path(source), "source", resolution)
    else:
        pictures = drawn(
            (n_members + n_nonmembers) * (2 if shadow == "disjoint" else 1), world_seed
        )
    parts = split(pictures, n_members, n_nonmembers, seed=seed, shadow=shadow)
    parts.write(Path(output))
    return parts


def drawn(count: int, world_seed: int) -> list[Picture]:
    """Images of the procedural world, one person each, at its own resolution; patterns, which all
    bear one caption, are passed over."""
    from shortcut_lightning.pocket import world

    pictures: list[Picture] = []
    index = 0
    while len(pictures) < count:
        each = world.draw(1_000_003 + world_seed, index)
        index += 1
        if each.scene.quality != "pattern":
            image = torch.from_numpy(each.image).permute(2, 0, 1).float() / 255
            pictures.append(picture(f"{index:05d}.png", each.caption, image, world.SIZE))
    return pictures


def main() -> None:
    """Reads the command line."""
    from jsonargparse import auto_cli

    try:
        auto_cli(make_collection, as_positional=False)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}".replace("audit.source", "--source"))


if __name__ == "__main__":
    main()
