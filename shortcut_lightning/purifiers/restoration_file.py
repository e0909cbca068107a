"""Restoration networks in files that the user brings: CodeFormer, GFPGAN, Real-ESRGAN and so on."""

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

Range = Literal["0..1", "-1..1"]

# Spandrel hands these their pictures as they come; they were trained on [-1, 1].
SIGNED = ("CodeFormer", "GFPGAN")


def load(path: str, value_range: Range) -> nn.Module:
    """A frozen network of (1, 3, H, W) in [0, 1] -> (1, 3, H', W') about [0, 1].

    A TorchScript file (`.pt`, `.ts`) runs as it is, its values in `value_range`. Other weights
    (`.pth`, `.safetensors`) are recognised by spandrel (MIT licence; CodeFormer, whose own licence
    is non-commercial, by spandrel_extra_arches), which must be installed beside this package.
    Raises ValueError where the file or spandrel is missing, or the file is another.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise ValueError(
            f"No weights at '{path}' (data.purifiers.path): give a TorchScript file, or weights of "
            "CodeFormer, GFPGAN or Real-ESRGAN with spandrel installed; neither comes with this "
            "package."
        )
    if file.suffix in (".pt", ".ts"):
        try:
            scripted = torch.jit.load(file, map_location="cpu")
        except RuntimeError as error:
            raise ValueError(
                f"'{path}' is no TorchScript file (data.purifiers.path); other weights end in .pth "
                "or .safetensors."
            ) from error
        network: nn.Module = Between(scripted, value_range)
    else:
        network = _with_spandrel(file)
    return network.eval().requires_grad_(False)


class Between(nn.Module):
    """A network between pictures in [0, 1]."""

    def __init__(self, network: Any, value_range: Range = "0..1") -> None:
        super().__init__()
        self.network = network
        self.signed = value_range == "-1..1"

    def forward(self, image: Tensor) -> Tensor:
        """(1, 3, H, W) -> (1, 3, H', W')."""
        made = self.network(image * 2 - 1 if self.signed else image)
        if isinstance(made, tuple):  # a face network's picture, and what it thought
            made = made[0]
        return (made.float() + 1) / 2 if self.signed else made.float()


def _with_spandrel(file: Path) -> nn.Module:
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
    try:
        found = ModelLoader(device="cpu").load_from_file(file)
    except Exception as error:  # spandrel's own kinds, and those of the readers under it
        raise ValueError(
            f"spandrel does not recognise '{file}' ({error}) (data.purifiers.path); CodeFormer "
            "takes spandrel_extra_arches."
        ) from error
    if found.architecture.id in SIGNED:
        return Between(found.model, "-1..1")
    return Recognised(found)


class Recognised(nn.Module):
    """A network as spandrel found it, which pads pictures to the sizes it can work on."""

    def __init__(self, found: Any) -> None:
        super().__init__()
        self.found, self.model = found, found.model

    def forward(self, image: Tensor) -> Tensor:
        """(1, 3, H, W) -> (1, 3, H', W')."""
        made: Tensor = self.found(image)
        return made.float()
