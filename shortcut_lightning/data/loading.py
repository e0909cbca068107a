"""From a folder in the config to examples at the training resolution."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from shortcut_lightning.batch import Example
from shortcut_lightning.data import buckets
from shortcut_lightning.data.buckets import Bucket
from shortcut_lightning.files import folders
from shortcut_lightning.files.cache import Cache, Ranks, together
from shortcut_lightning.files.images import center_crop, load_images, resize_shorter_side
from shortcut_lightning.prompts import Prompts


def preparation(
    side: int, crop: bool, sizes: Sequence[Bucket] = (), multiple: int = 1
) -> Callable[[Tensor], Tensor]:
    """What is done to each picture: its shorter side to `side` pixels, square with `crop`, else
    with the longer side at a `multiple`; with `sizes` it is fitted into the nearest of these
    buckets instead."""
    if sizes:
        return buckets.preparation(sizes)

    def prepare(image: Tensor) -> Tensor:
        if crop:
            return center_crop(resize_shorter_side(image, side), side)
        return resize_shorter_side(image, side, multiple)

    return prepare


def load_examples(
    folder: Path,
    key: str,
    prompts: Prompts,
    *,
    captions: bool,
    side: int,
    crop: bool,
    recursive: bool | None = None,
    sizes: Sequence[Bucket] = (),
    multiple: int = 1,
) -> list[Example]:
    """The images of a folder, prepared, with their plain captions. `key` is the config key of the
    folder, for messages; `recursive` as in `list_images`; `sizes` are the buckets, if any."""
    found = folders.read_folder(folder, key, captions, recursive)
    prepare = preparation(side, crop, sizes, multiple)
    own: list[torch.Size] = []

    def noted(image: Tensor) -> Tensor:
        own.append(image.shape)
        return prepare(image)

    images = load_images([entry.path for entry in found], noted)
    return [
        Example(
            image,
            prompts.caption(entry.text),
            entry.name,
            entry.path if min(size[-2:]) > min(image.shape[-2:]) else None,
        )
        for image, entry, size in zip(images, found, own, strict=True)
    ]


class Subject(NamedTuple):
    """The photographs of a run as they are loaded."""

    given: list[Example]
    references: list[Example]  # square; the given ones where none are held out
    validated: list[Example]  # the same, in buckets where there are any
    held_out: bool


def load_subject(
    instance_data_dir: str,
    reference_data_dir: str,
    prompts: Prompts,
    cache: Cache,
    *,
    captions: bool,
    side: int,
    crop: bool,
    recursive: bool,
    sizes: Sequence[Bucket] = (),
    multiple: int = 1,
) -> Subject:
    """Instance images and references; `sizes` are the buckets, if any, `multiple` is for the longer
    side of what is not cropped."""
    instances, references = subject_folders(
        instance_data_dir, reference_data_dir, cache.folder, cache.ranks
    )

    def load(folder: Path, key: str, crop: bool, sizes: Sequence[Bucket] = ()) -> list[Example]:
        return load_examples(
            folder,
            key,
            prompts,
            captions=captions,
            side=side,
            crop=crop,
            recursive=recursive,
            sizes=sizes,
            multiple=multiple,
        )

    given = load(instances, "instance_data_dir", crop, sizes)
    held_out = references or instances
    if references or sizes:
        square = load(held_out, "reference_data_dir", True)
    else:
        square = [each._replace(image=center_crop(each.image, side)) for each in given]
    validated = load(held_out, "reference_data_dir", True, sizes) if sizes else square
    return Subject(given, square, validated, references is not None)


def subject_folders(
    instance_data_dir: str, reference_data_dir: str, cache: Path, ranks: Ranks
) -> tuple[Path, Path | None]:
    """Folders of the instance images and of the held-out ones, if any. `pocket:<seed>` has both;
    it is drawn by rank 0 when first used."""
    if not instance_data_dir:
        raise ValueError(
            "data.instance_data_dir is not set: give a folder of images, or pocket:<seed> for a "
            "generated subject."
        )
    reference = Path(reference_data_dir).expanduser() if reference_data_dir else None
    if not folders.is_pocket(instance_data_dir):
        return Path(instance_data_dir).expanduser(), reference
    together(lambda: folders.draw_subject(instance_data_dir, cache), ranks)
    subject = folders.subject_folder(instance_data_dir, cache)
    return subject / "instance", reference or subject / "reference"
