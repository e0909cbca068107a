"""A model small enough to think about: 8 x 8 average pooling as encoder, two numbers behind."""

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional

from shortcut_lightning import draws
from shortcut_lightning.backbones.base import Backbone, Conditioning, Posterior
from shortcut_lightning.backbones.paths import VariancePreserving
from shortcut_lightning.batch import PromptBatch, TrainBatch
from shortcut_lightning.safe_guidance import SafeGuidance


class Gain(nn.Module):
    """Multiplies by one number that can learn."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([value]))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x


class FakeDenoiser(nn.Module):
    """Two numbers, under the names a UNet has for what some attacks look for."""

    def __init__(self) -> None:
        super().__init__()
        block = nn.Module()
        block.resnets = nn.ModuleList([Gain(0.5)])
        self.up_blocks = nn.ModuleList([block])
        self.attn2 = nn.ModuleDict({"to_v": Gain(1e-3)})
        self.attn2.to_q = None  # by which layers of attention are known

    def forward(self, noisy: Tensor, hidden: Tensor) -> Tensor:
        return self.up_blocks[-1].resnets[0](noisy) + self.attn2["to_v"](hidden)[..., None]


class FakeBackbone(Backbone):
    """Linear in the image, cheap, and with a dropout so that a wrong mode shows."""

    resolution = 16
    num_train_timesteps = 10
    prediction_type = "epsilon"
    downsampling = 8
    prompt_length = 75
    samplers = ()
    latent_scale = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.linspace(-1, 1, 12).reshape(4, 3))
        self.unet = FakeDenoiser()
        self.dropout = nn.Dropout(0.5)
        self.sampled: list[tuple[str, int]] = []

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    @property
    def scale(self) -> nn.Parameter:
        return self.unet.up_blocks[-1].resnets[0].weight

    @property
    def denoiser(self) -> nn.Module:
        return self.unet

    @property
    def text_encoders(self) -> nn.ModuleList:
        return nn.ModuleList()

    def encode(self, images: Tensor) -> Posterior:
        pooled = functional.avg_pool2d(images * 2 - 1, 8)
        mean = self.dropout(torch.einsum("kc,bchw->bkhw", self.mix, pooled))
        return Posterior(mean, torch.full_like(mean, 0.1))

    def decode(self, latents: Tensor) -> Tensor:
        return functional.interpolate(latents[:, :3].sigmoid(), scale_factor=8)

    def embed(self, prompts: Sequence[str]) -> Conditioning:
        lengths = [[[float(len(prompt))]] for prompt in prompts]
        return Conditioning(torch.tensor(lengths, device=self.mix.device))

    def alphas_cumprod(self) -> Tensor:
        return torch.linspace(0.99, 0.01, self.num_train_timesteps, device=self.mix.device)

    @property
    def path(self) -> VariancePreserving:
        return VariancePreserving(self.alphas_cumprod())

    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        return self.unet(noisy, conditioning.hidden)

    def sample(
        self,
        prompts: Sequence[str],
        *,
        seeds: Sequence[int],
        negative_prompts: Sequence[str] | str = "",
        num_inference_steps: int = 25,
        guidance_scale: float = 7.5,
        scheduler: str = "",
        safety: SafeGuidance | None = None,
        size: tuple[int, int] | None = None,
    ) -> Tensor:
        self.sampled += zip(prompts, seeds, strict=True)
        height, width = size or (self.resolution, self.resolution)
        rows = [
            torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))
            for seed in seeds
        ]
        return torch.stack(rows).to(self.mix.device)


# What personalises or exports a model is not faked; without this line it would have to be named.
FakeBackbone.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]


class FakeModule(LightningModule):
    """Trains the fake and remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = FakeBackbone()
        self.backbone.dropout.p = 0.0
        self.fail_at = -1
        self.seen: list[TrainBatch] = []
        self.validated: list[TrainBatch] = []
        self.asked: list[PromptBatch] = []

    def training_step(self, batch: TrainBatch, batch_idx: int) -> Tensor:
        if self.global_step == self.fail_at:
            raise RuntimeError("power cut")
        self.seen.append(batch)
        latents = (
            batch.moments[:, 0]
            if batch.moments is not None
            else self.backbone.encode(batch.images).mean
        )
        noise = draws.normal(latents.shape[1:], draws.run_seed(), "noise", batch.draws)
        steps = draws.timesteps(10, draws.run_seed(), "timestep", batch.draws)
        noisy = self.backbone.add_noise(latents, noise, steps)
        prediction = self.backbone.predict(noisy, steps, self.backbone.embed(batch.prompts))
        return functional.mse_loss(prediction, noise)

    def validation_step(self, batch: TrainBatch, batch_idx: int) -> None:
        self.validated.append(batch)

    def test_step(self, batch: PromptBatch, batch_idx: int) -> Tensor:
        self.asked.append(batch)
        return self.backbone.sample(batch.prompts, seeds=batch.seeds.tolist())

    def predict_step(self, batch: PromptBatch, batch_idx: int) -> Tensor:
        return self.backbone.sample(batch.prompts, seeds=batch.seeds.tolist())

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=1e-3)  # more, and it diverges
