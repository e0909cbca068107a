"""Random splits: which images the target may learn, which the shadow, and which none.

A random hold-out is what makes an audit of a fine-tune exact: without membership nothing
distinguishes the two sets.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from shortcut_lightning import draws
from shortcut_lightning.audit.duplicates import find_copies, first_of_each, signature
from shortcut_lightning.files.atomic import write_text
from shortcut_lightning.files.images import SUFFIXES, save_image
from shortcut_lightning.membership.pictures import Picture

PARTS = ("members", "nonmembers", "shadow_members", "shadow_nonmembers")


@dataclass(frozen=True)
class Split:
    """Four parts of a collection, and the images that are in none because they are copies."""

    members: list[Picture]
    nonmembers: list[Picture]
    shadow_members: list[Picture]
    shadow_nonmembers: list[Picture]
    copies: list[str] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """A folder for each part, with `metadata.jsonl`, as `fit` and `audit` read them, and
        `split.json` with every name and content key.

        Raises ValueError where pictures of another split lie there: they would count as members.
        """
        for part in PARTS:
            _refuse_others(folder / part, getattr(self, part))
        (folder / "split.json").unlink(missing_ok=True)  # it stands for the whole
        record: dict[str, object] = {"copies_left_out": self.copies}
        for part in PARTS:
            pictures: list[Picture] = getattr(self, part)
            place = folder / part
            place.mkdir(parents=True, exist_ok=True)
            rows = []
            for picture in pictures:
                name = _written(picture, place)
                rows.append(json.dumps({"file_name": name, "text": picture.caption}))
            write_text(place / "metadata.jsonl", "\n".join(rows) + "\n")
            record[part] = [{"name": p.name, "key": f"{p.key:016x}"} for p in pictures]
        write_text(folder / "split.json", json.dumps(record, indent=1) + "\n")


def split(
    pictures: Sequence[Picture],
    n_members: int,
    n_nonmembers: int,
    *,
    seed: int = 0,
    shadow: Literal["same", "disjoint"] = "disjoint",
) -> Split:
    """Draws the parts with exactly these sizes, the shadow's like the target's.

    Near-copies are taken out first, so no part holds what another part has learned. "same" draws
    the shadow's parts anew from the target's images, as CLiD did, where images are few; "disjoint"
    from others.

    Raises ValueError when there are not enough images.
    """
    kept = first_of_each([signature(each.pixels()) for each in pictures])
    copies = sorted({p.name for p in pictures} - {pictures[i].name for i in kept})
    size = n_members + n_nonmembers
    needed = size * (2 if shadow == "disjoint" else 1)
    if min(n_members, n_nonmembers) < 1 or len(kept) < needed:
        raise ValueError(
            f"{n_members} members and {n_nonmembers} non-members with a {shadow} shadow need "
            f"{needed} different images; there are {len(kept)} ({len(copies)} copies left out). "
            "Give smaller parts, more images, or shadow: same."
        )
    generator = draws.generator(seed, "membership split", 0)
    order = [kept[i] for i in torch.randperm(len(kept), generator=generator).tolist()]
    if shadow == "same":
        again = torch.randperm(size, generator=generator).tolist()
        order = order[:size] + [order[i] for i in again]
    ends = np.cumsum([n_members, n_nonmembers, n_members, n_nonmembers])
    parts = [[pictures[i] for i in part] for part in np.split(order, ends)]
    return Split(parts[0], parts[1], parts[2], parts[3], copies)


def require_disjoint(
    members: Sequence[Picture], nonmembers: Sequence[Picture], what: str
) -> list[str]:
    """Sentences about near-copies across two sets; equal images are an error.

    Raises ValueError when an image is in both sets, naming the pairs.
    """
    keys = {each.key: each.name for each in nonmembers}
    both = [(each.name, keys[each.key]) for each in members if each.key in keys]
    if both:
        named = "; ".join(f"{a} = {b}" for a, b in both[:5])
        raise ValueError(
            f"{len(both)} images are in both {what}: {named}{'; ...' if len(both) > 5 else ''}. "
            "An image is a member or it is not; remove it from one of them."
        )
    copies = find_copies(*([signature(p.pixels()) for p in s] for s in (members, nonmembers)))
    return [
        f"{members[c.first].name} and {nonmembers[c.second].name}, of {what}, are near-copies "
        f"(likeness {c.likeness:.3f}): the second is half a member."
        for c in copies
    ]


def _refuse_others(place: Path, pictures: Sequence[Picture]) -> None:
    own = {_name(picture) for picture in pictures}
    there = sorted(place.iterdir()) if place.is_dir() else []
    others = [p.name for p in there if p.suffix.lower() in SUFFIXES and p.name not in own]
    if others:
        raise ValueError(
            f"{place} already holds {', '.join(others[:3])}{', ...' if len(others) > 3 else ''}, "
            "which this split does not put there; give another --output."
        )


def _name(picture: Picture) -> str:
    drawn = isinstance(picture.source, Tensor)
    return f"{Path(picture.name).stem}.png" if drawn else picture.name


def _written(picture: Picture, place: Path) -> str:
    name = _name(picture)
    if isinstance(picture.source, Tensor):
        save_image(picture.source, place / name)
    else:
        shutil.copyfile(picture.source, place / name)
    return name
