"""CAT (arXiv 2502.07225): the autoencoder learns the protected pictures before the denoiser does.

What protects a picture moves its latents away from the picture. Low-rank changes of the
autoencoder, trained to reproduce the protected pictures, move them back; then DreamBooth trains.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from lightning.pytorch import Callback
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.nn.utils import parametrize
from tqdm import tqdm

from shortcut_lightning import draws
from shortcut_lightning.backbones import Backbone
from shortcut_lightning.files.images import resize_shorter_side
from shortcut_lightning.finite import NotFinite, all_finite
from shortcut_lightning.modules.dreambooth import DreamBooth
from shortcut_lightning.ranges import Count, Positive

# Convolutions of residual blocks and of what changes the size; projections of attention.
ADAPTED = ("conv", "conv1", "conv2", "to_q", "to_k", "to_v", "to_out.0")


class CAT(DreamBooth):
    """DreamBooth with an autoencoder adapted to the pictures that are trained on, among them
    `data.training.copies`.

    The change is merged into the autoencoder's weights when it is learnt, so that pictures are
    encoded, sampled and exported with it. The published loss may also be LPIPS or both; here it is
    the squared error, their default.

    Args:
        vae_part: Which half is adapted.
        vae_rank: Rank of the changes.
        vae_steps: Steps of AdamW with a falling cosine rate.
        vae_learning_rate: Its highest rate.
        vae_batch_size: Pictures in a step.
        **dreambooth: What `DreamBooth` takes. `data.cache_latents` must be false: latents are
            cached before the autoencoder is adapted.
    """

    def __init__(
        self,
        vae_part: Literal["both", "encoder", "decoder"] = "both",
        vae_rank: Count = 128,
        vae_steps: Count = 10000,
        vae_learning_rate: Positive = 1e-4,
        vae_batch_size: Count = 4,
        **dreambooth: Any,
    ) -> None:
        super().__init__(**dreambooth)
        self.adapted = False
        if not self._layers():
            raise ValueError(
                f"CAT finds no layers to adapt in the autoencoder (model.vae_part '{vae_part}')."
            )

    def configure_callbacks(self) -> list[Callback]:
        """None. It is asked before the data module does anything: raises ValueError where what that
        does could not be used."""
        data: Any = getattr(self.trainer, "datamodule", None)
        if self.trainer.state.fn != TrainerFn.FITTING:
            return []
        if not (hasattr(data, "trained_on") and hasattr(data, "cache_latents")):
            raise ValueError(
                "CAT adapts the autoencoder to the pictures of one PersonalizationDataModule; "
                f"data is a {type(data).__name__}."
            )
        if data.cache_latents:
            raise ValueError(
                "data.cache_latents keeps latents of the autoencoder as it was, and CAT changes "
                "it; set data.cache_latents to false."
            )
        return []

    def on_fit_start(self) -> None:
        """Adapts the autoencoder, unless a checkpoint brought it."""
        super().on_fit_start()
        if not self.adapted:
            data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
            learnt = [each.image for each in (*data.trained_on, *data.copies)]
            self.adapt(squares(learnt).to(self.device))
            self.adapted = True

    def adapt(self, images: Tensor) -> list[float]:
        """Trains and merges the changes on (N, 3, H, W) in [0, 1]; the loss at each step."""
        layers, own = self._layers(), self.hparams
        chance = draws.generator(self.seed, "cat", 0)
        added = nn.ModuleList(LowRank(each.weight, own["vae_rank"], chance) for each in layers)
        for layer, change in zip(layers, added, strict=True):
            parametrize.register_parametrization(layer, "weight", change.to(layer.weight.device))
        optimizer = torch.optim.AdamW(added.parameters(), lr=own["vae_learning_rate"])
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, own["vae_steps"])
        losses: list[float] = []
        with torch.enable_grad():
            for _ in tqdm(range(own["vae_steps"]), desc="CAT", unit="step", mininterval=0.5):
                rows = torch.randint(len(images), (own["vae_batch_size"],), generator=chance)
                loss = self.reproduction(images[rows], chance)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                losses.append(loss.item())
        for layer in layers:
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
            layer.weight.requires_grad_(False)
        if not all_finite(layer.weight for layer in layers):
            raise NotFinite(
                "CAT: the autoencoder's weights are NaN or infinite; try a lower "
                "model.vae_learning_rate."
            )
        return losses

    def reproduction(self, images: Tensor, chance: torch.Generator) -> Tensor:
        """Mean squared error, in [-1, 1], of what a draw from the latents is decoded to."""
        posterior = self.backbone.encode(images)
        noise = torch.randn(posterior.mean.shape, generator=chance).to(images.device)
        made = self.backbone.decode(posterior.sample(noise))
        return 4 * (made - images).square().mean()

    @property
    def _holds_base(self) -> bool:
        """No: beneath adapters too, the autoencoder has changed."""
        return False

    def _layers(self) -> list[Any]:
        return [layer for _, layer in autoencoder_layers(self.backbone, self.hparams["vae_part"])]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = dict(checkpoint["state_dict"])
        super().on_save_checkpoint(checkpoint)
        if self.adapted:
            # Where weights are in shards, the first process alone has them.
            kept = {name: state[name] for name in self._names() if name in state}
            checkpoint["state_dict"] |= kept

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        stored = checkpoint["state_dict"]
        changed = {name: stored.pop(name) for name in self._names() if name in stored}
        super().on_load_checkpoint(checkpoint)
        stored |= changed
        self.adapted = bool(changed)

    def _names(self) -> list[str]:
        found = autoencoder_layers(self.backbone, self.hparams["vae_part"])
        return [f"backbone.{name}.weight" for name, _ in found]


class LowRank(nn.Module):
    """A change of a weight (O, ...) by a matrix of low rank, zero at first; as a LoRA has it on
    linear and convolutional layers, with alpha equal to the rank."""

    def __init__(self, weight: Tensor, rank: int, chance: torch.Generator) -> None:
        super().__init__()
        fan_in = weight[0].numel()
        self.down = nn.Parameter(torch.randn(rank, fan_in, generator=chance) / rank)
        self.up = nn.Parameter(torch.zeros(len(weight), rank))

    def forward(self, weight: Tensor) -> Tensor:
        """The changed weight."""
        return weight + (self.up @ self.down).view_as(weight)


def autoencoder_layers(backbone: Backbone, part: str) -> Iterator[tuple[str, Any]]:
    """What is adapted, with its name: of all but the denoiser and the text encoders."""
    networks = (backbone.denoiser, *backbone.text_encoders)
    others = {id(module) for network in networks for module in network.modules()}
    for name, module in backbone.named_modules():
        wanted = part == "both" or f".{part}." in f".{name}."
        ours = id(module) not in others and isinstance(module, nn.Conv2d | nn.Linear)
        if ours and wanted and f".{name}".endswith(tuple(f".{each}" for each in ADAPTED)):
            yield name, module


def squares(images: Sequence[Tensor]) -> Tensor:
    """(N, 3, side, side): the middle of each, the smaller ones, which buckets leave, enlarged to
    the largest, so that of none is what protects it averaged away."""
    middles = [square(image) for image in images]
    side = max(middle.shape[-1] for middle in middles)
    return torch.stack([resize_shorter_side(middle, side) for middle in middles])


def square(image: Tensor) -> Tensor:
    """The middle of (3, H, W)."""
    height, width = image.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return image[:, top : top + side, left : left + side]
