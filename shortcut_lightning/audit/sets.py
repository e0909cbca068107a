"""The images of an audit: read, checked for overlap, divided in those to judge and to tune on."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from shortcut_lightning.audit.captioner import Captioner
from shortcut_lightning.audit.splits import require_disjoint
from shortcut_lightning.membership.pictures import Picture, read_pictures


class Sets(NamedTuple):
    """Members and hold-outs to judge on, and to tune on."""

    members: list[Picture]
    holdouts: list[Picture]
    shadow_members: list[Picture]
    shadow_holdouts: list[Picture]


def read_sets(
    folders: Mapping[str, str],
    resolution: int,
    seed: int,
    caption: str = "",
    captioner: Captioner | None = None,
    captions_file: Path | None = None,
) -> tuple[Sets, list[str]]:
    """The four sets and sentences about what was found odd.

    Args:
        folders: Of "members", "nonmembers" and, with a shadow model, "shadow_members" and
            "shadow_nonmembers". Without those, half of the first two, drawn by `seed`, takes their
            place.
        resolution: Of the models.
        seed: Of the halves.
        caption: One sentence for all; empty for the images' own.
        captioner: Writes captions instead.
        captions_file: Where it keeps them.

    Raises ValueError for folders that cannot be used, and for images in two opposite sets.
    """
    warnings: list[str] = []
    read: dict[str, list[Picture]] = {}
    for key, source in folders.items():
        described = caption or ("a photo" if captioner else "")  # replaced below
        pictures, complaints = read_pictures(Path(source), key, resolution, described)
        read[key] = list({each.key: each for each in pictures}.values())
        warnings += complaints
        if len(read[key]) < len(pictures):
            twice = len(pictures) - len(read[key])
            warnings.append(f"{twice} exact copies within audit.{key} were left out.")
        if captioner:
            read[key] = captioner.describe(read[key], captions_file)
    what = "audit.members and audit.nonmembers"
    warnings += require_disjoint(read["members"], read["nonmembers"], what)
    if "shadow_members" in read:
        inside, outside = read["shadow_members"], read["shadow_nonmembers"]
        what = "audit.shadow_members and audit.shadow_nonmembers"
        warnings += require_disjoint(inside, outside, what)
        return Sets(read["members"], read["nonmembers"], inside, outside), warnings
    rng = np.random.default_rng(seed)
    halves = []
    for key in ("members", "nonmembers"):
        order = rng.permutation(len(read[key]))
        middle = len(order) // 2
        halves.append([[read[key][i] for i in part] for part in (order[middle:], order[:middle])])
    return Sets(halves[0][0], halves[1][0], halves[0][1], halves[1][1]), warnings
