"""The small networks that measure and restore, and their loaders.

All take float images (N, 3, H, W) in [0, 1] of any size and resize inside to 64 px. Loaders return
frozen modules in eval mode, from `weights/<name>/config.json` and `model.safetensors` (fp16 on
disk, float32 in memory). Gradients still flow to the images.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shortcut_lightning import weights
from shortcut_lightning.pocket import WEIGHTS
from shortcut_lightning.pocket.labels import ATTRIBUTES

if TYPE_CHECKING:
    from transformers import CLIPModel

SIZE = 64
Network = TypeVar("Network", bound=nn.Module)


class Trunk(nn.Sequential):
    """Strided convolutions from 64 px down to a flat vector that still knows where things are."""

    def __init__(self, widths: tuple[int, ...] = (24, 48, 96, 96)) -> None:
        layers: list[nn.Module] = []
        before = 3
        for level, width in enumerate(widths):
            layers += [nn.Conv2d(before, width, 3, 2, 1), nn.GroupNorm(8, width), nn.SiLU()]
            if level < len(widths) - 1:
                layers.append(Residual(width))
            before = width
        super().__init__(*layers, nn.Flatten())
        self.width = widths[-1] * (SIZE >> len(widths)) ** 2


class Residual(nn.Module):
    """x + two convolutions of x."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, 1, 1)
        self.second = nn.Conv2d(width, width, 3, 1, 1)
        self.norm = nn.GroupNorm(8, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.silu(self.norm(self.first(x))))


class IdentityEncoder(nn.Module):
    """Pictures to unit vectors (N, width); the cosine says whether two show the same person."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.config = {"width": width}
        self.trunk = Trunk()
        self.head = nn.Linear(self.trunk.width, width)

    def forward(self, images: Tensor) -> Tensor:
        return F.normalize(self.head(self.trunk(fit(images))), dim=-1)


class AttributeClassifier(nn.Module):
    """Pictures to logits per attribute of `labels.ATTRIBUTES`, the quality among them."""

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.config = {"width": width}
        self.width = width  # dimension of `features`
        self.trunk = Trunk()
        self.neck = nn.Linear(self.trunk.width, width)
        self.heads = nn.ModuleDict(
            {name: nn.Linear(width, len(c)) for name, c in ATTRIBUTES.items()}
        )

    def features(self, images: Tensor) -> Tensor:
        """Penultimate features (N, 96), for Frechet and kernel distances."""
        return self.neck(self.trunk(fit(images)))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Attribute name -> logits (N, classes), classes in the order of `labels.ATTRIBUTES`."""
        features = F.silu(self.features(images))
        return {name: head(features) for name, head in self.heads.items()}

    @torch.no_grad()
    def quality(self, images: Tensor) -> Tensor:
        """Pictures (N, 3, H, W) to probabilities (N, 3) of clean, noisy and blurry, on the CPU."""
        assert ATTRIBUTES["quality"] == ("clean", "noisy", "blurry")
        device = self.neck.weight.device
        logits = [self(chunk.to(device))["quality"].cpu() for chunk in images.split(32)]
        return torch.cat(logits).softmax(dim=-1)


class Restorer(nn.Module):
    """Degraded pictures to clean ones, by a residual from three resolutions."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.config = {"width": width}
        self.enter = nn.Conv2d(3, width, 3, 1, 1)
        self.down = nn.Conv2d(width, 2 * width, 4, 2, 1)
        self.middle = nn.Sequential(Residual(2 * width), Residual(2 * width))
        self.lower = nn.Conv2d(2 * width, 4 * width, 4, 2, 1)
        self.bottom = nn.Sequential(Residual(4 * width), Residual(4 * width))
        self.raise_ = nn.Conv2d(4 * width, 8 * width, 1)
        self.up = nn.Conv2d(2 * width, 4 * width, 1)
        self.leave = nn.Sequential(Residual(width), nn.Conv2d(width, 3, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        shorter = min(images.shape[-2:])  # at 64 px, and the other side as the picture has it
        x = fit(images, [round(side * SIZE / shorter / 4) * 4 for side in images.shape[-2:]])
        full = self.enter(x * 2 - 1)
        half = self.middle(F.silu(self.down(full)))
        low = self.bottom(F.silu(self.lower(half)))
        half = half + F.pixel_shuffle(self.raise_(low), 2)
        restored = x + self.leave(full + F.pixel_shuffle(self.up(half), 2))
        return fit(restored, images.shape[-2:]).clamp(0, 1)


def fit(images: Tensor, size: Sequence[int] = (SIZE, SIZE)) -> Tensor:
    """Resize to `size` where needed, without aliasing; differentiable."""
    if tuple(images.shape[-2:]) == tuple(size):
        return images
    return F.interpolate(images, tuple(size), mode="bilinear", antialias=True, align_corners=False)


def load_identity_encoder(folder: Path = WEIGHTS / "identity") -> IdentityEncoder:
    """The shipped identity encoder."""
    return _load(IdentityEncoder, folder)


def load_attribute_classifier(folder: Path = WEIGHTS / "attributes") -> AttributeClassifier:
    """The shipped attribute and quality classifier."""
    return _load(AttributeClassifier, folder)


def load_restoration(folder: Path = WEIGHTS / "restoration") -> Restorer:
    """The shipped restoration network."""
    return _load(Restorer, folder)


def load_clip(folder: Path = WEIGHTS / "clip") -> "CLIPModel":
    """The shipped CLIP (float32): 64 px normalised as 2 x - 1, tokenizer in the same folder."""
    from transformers import CLIPModel

    model = weights.load(CLIPModel, folder, "the pocket", arguments={"dtype": torch.float32})
    return model.eval().requires_grad_(False)


def save(network: nn.Module, folder: Path) -> None:
    """Write `config.json` (constructor arguments) and fp16 `model.safetensors`."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    config: Mapping[str, Any] = network.config  # type: ignore[assignment]
    (folder / "config.json").write_text(json.dumps(dict(config), indent=2) + "\n")
    weights = {name: value.half().contiguous() for name, value in network.state_dict().items()}
    save_file(weights, folder / "model.safetensors")


def _load(kind: type[Network], folder: Path) -> Network:
    with torch.random.fork_rng(devices=[]):  # loading weights is no reason to move anyone's dice
        network = weights.build(kind, folder, "the pocket")
    return network.eval().requires_grad_(False)
