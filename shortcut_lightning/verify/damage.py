"""How far the copies are from the photographs, as their owner would see it."""

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from shortcut_lightning.files.folders import list_images
from shortcut_lightning.files.images import load_image, resize_shorter_side
from shortcut_lightning.metrics.perceptual import lpips
from shortcut_lightning.verify.photographs import INSTANCE, MEASURED, NOISE, PROTECTED

_SIDE = 512  # LPIPS looks at photographs of this shorter side at most
_HEADS = {"linf_255": "largest, /255", "psnr": "PSNR, dB", "ssim": "SSIM"}
_LPIPS = "LPIPS"


def damage(root: Path) -> dict[str, dict[str, float | None]]:
    """Copy -> measure -> mean over the photographs; LPIPS is None where its network cannot be had.
    Only copies that are finished."""
    folder = root / "photographs"
    found: dict[str, dict[str, float | None]] = {}
    for name in (NOISE, PROTECTED):
        file = folder / name / MEASURED
        if file.is_file():
            rows = json.loads(file.read_text("utf-8"))["copies"]
            found[name] = {head: _mean([row[key] for row in rows]) for key, head in _HEADS.items()}
            found[name][_LPIPS] = _lpips(folder / INSTANCE, folder / name)
    return found


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


@torch.no_grad()
def _lpips(originals: Path, copies: Path) -> float | None:
    try:
        measure = lpips("alex", torch.device("cpu"), "verify")
    except ValueError:
        return None
    return _mean([float(measure(*pair)) for pair in _pairs(originals, copies)])


def _pairs(originals: Path, copies: Path) -> Iterator[tuple[Tensor, Tensor]]:
    by_stem = {path.stem: path for path in list_images(originals, "instance_data_dir")}
    for path in list_images(copies, "instance_data_dir"):
        pair = [load_image(each) for each in (by_stem[path.stem], path)]
        side = min(_SIDE, *pair[0].shape[-2:])
        one, other = (resize_shorter_side(image, side)[None] for image in pair)
        yield one, other
