"""Restoration networks whose weights the user brings: CodeFormer, GFPGAN, Real-ESRGAN and so on."""

from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.purifiers.base import Purifier
from shortcut_lightning.purifiers.resampling import resized


class ExternalRestoration(Purifier):
    """A restoration network in a file of your own: CodeFormer, GFPGAN, Real-ESRGAN and their like.

    A TorchScript file (`.pt`, `.ts`: (B, 3, H, W) -> (B, 3, H', W')) runs as it is. Other weights
    (`.pth`, `.safetensors`) are recognised by spandrel, which has to be installed beside this
    package; CodeFormer's licence is non-commercial. Whole pictures are restored: faces are neither
    cut out nor pasted back, so give aligned portraits to a face network.

    Args:
        path: The file.
        side: Images are brought to squares of this side first; 0 leaves their size. CodeFormer
            wants 512.
        value_range: What the TorchScript network takes and returns.
    """

    def __init__(
        self, path: str, side: int = 0, value_range: Literal["0..1", "-1..1"] = "0..1"
    ) -> None:
        if side < 0:
            raise ValueError(f"ExternalRestoration's side is {side} pixels; give 0 or more.")
        self.path = path
        self.side = side
        self.value_range = value_range

    @cached_property
    def network(self) -> Any:
        """The network, loaded at first use."""
        file = Path(self.path).expanduser()
        if not file.is_file():
            raise ValueError(
                f"No weights at '{self.path}' (data.purifiers.path). ExternalRestoration takes a "
                "TorchScript file, or weights of CodeFormer, GFPGAN or Real-ESRGAN with spandrel "
                "installed; neither comes with this package."
            )
        if file.suffix in (".pt", ".ts"):
            try:
                return torch.jit.load(file, map_location="cpu").eval()
            except RuntimeError as error:
                raise ValueError(
                    f"'{self.path}' is no TorchScript file (data.purifiers.path); other weights "
                    "end in .pth or .safetensors."
                ) from error
        return _with_spandrel(file)

    def run(
        self, images: Tensor, backbone: Backbone, prompts: list[str], generator: torch.Generator
    ) -> Tensor:
        """See `Purifier`."""
        network = self.network.to(images.device)
        given = resized(images, (self.side, self.side)) if self.side else images
        signed = self.value_range == "-1..1"
        # One at a time: scripted and recognised networks alike promise no more.
        rows = [network(image[None] * 2 - 1 if signed else image[None]) for image in given]
        restored = torch.cat(rows).float()
        restored = (restored + 1) / 2 if signed else restored
        return resized(restored.clamp(0, 1), (images.shape[-2], images.shape[-1]))


def _with_spandrel(file: Path) -> Any:
    try:
        from spandrel import ModelLoader
    except ImportError as error:
        raise ValueError(
            f"'{file.name}' needs spandrel to be recognised (pip install spandrel, for CodeFormer "
            "also spandrel_extra_arches); or give a TorchScript file (data.purifiers.path)."
        ) from error
    try:
        import spandrel_extra_arches

        spandrel_extra_arches.install(ignore_duplicates=True)
    except ImportError:
        pass  # networks with non-commercial licences are not recognised then
    return ModelLoader(device="cpu").load_from_file(file).eval()
