"""Erased Stable Diffusion (arXiv 2303.07345): the model unlearns what a word makes it draw.

The edited model's prediction for the concept is drawn to the frozen model's guidance away from it
(eq. 7), on latents that the edited model itself has half denoised towards the concept. A baseline:
it needs a word that the model obeys, which an implicit concept does not have.
"""

from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from shortcut_lightning import draws
from shortcut_lightning.backbones import Backbone
from shortcut_lightning.backbones.text_attention import text_parameters
from shortcut_lightning.batch import TrainBatch
from shortcut_lightning.modules.dreambooth import DreamBooth
from shortcut_lightning.modules.trainable import check_denoiser_alone
from shortcut_lightning.ranges import Finite, NotNegative, Positive, SamplingSteps


class ErasedStableDiffusion(DreamBooth):
    """Trains on no images; the data module's only count the steps and serve the evaluation.

    Args:
        concept: Words for what is to be erased, for example "QR code".
        negative_guidance: How far past the unconditional prediction the target lies.
        parts: `cross_attention` (ESD-x, for what a prompt names; in joint attention the text's
            side of it) or `others` (ESD-u, which also erases what is not named).
        start_guidance: Guidance of the sampling that makes the training latents.
        ddim_steps: Its steps; each example stops at a random one.
        learning_rate: Of the denoiser's chosen parts.
        **dreambooth: What `DreamBooth` takes; the method is full fine-tuning of the chosen parts.

    Raises ValueError where something else is to be trained, and for `cross_attention` of a
    denoiser that has no attention to text (a single stream, as Z-Image's).
    """

    def __init__(
        self,
        concept: str = "",
        negative_guidance: Finite = 1.0,
        parts: Literal["cross_attention", "others"] = "cross_attention",
        start_guidance: NotNegative = 3.0,
        ddim_steps: SamplingSteps = 50,
        learning_rate: Positive = 1e-5,
        **dreambooth: Any,
    ) -> None:
        if not concept:
            raise ValueError("model.concept is empty; give words for what is to be erased.")
        check_denoiser_alone("ErasedStableDiffusion", dreambooth)
        super().__init__(learning_rate=learning_rate, **dreambooth)
        self.concept = concept
        self.negative_guidance = negative_guidance
        self.start_guidance = start_guidance
        self.ddim_steps = ddim_steps
        self._teacher: list[Backbone] = []  # in a list, so that it is no submodule
        reading = text_parameters(self.backbone.denoiser)
        if parts == "cross_attention" and not reading:
            raise ValueError(
                "model.parts is 'cross_attention', which trains the attention to text, and this "
                "model's denoiser has none of its own: set model.parts to 'others'."
            )
        for name, parameter in self.backbone.denoiser.named_parameters():
            parameter.requires_grad_((name in reading) == (parts == "cross_attention"))

    def forward(self, batch: TrainBatch) -> dict[str, Tensor]:
        """Squared distance to the frozen model's guidance away from the concept."""
        count = len(batch.prompts)
        concept = self.backbone.embed([self.concept] * count)
        nothing = self.backbone.embed([""] * count)
        noisy, timesteps = self.half_denoised(batch)
        frozen = self.teacher()
        with torch.no_grad():
            unconditional = frozen.predict(noisy, timesteps, nothing)
            conditional = frozen.predict(noisy, timesteps, concept)
        target = unconditional - self.negative_guidance * (conditional - unconditional)
        prediction = self.backbone.predict(noisy, timesteps, concept)
        loss = (prediction - target).square().mean()
        return {"loss": loss, "loss_instance": loss.detach()}

    def teacher(self) -> Backbone:
        """The model as it was before training, with `lora` and `embeddings`; loaded when first
        asked for."""
        if not self._teacher:
            self._teacher.append(self._load().requires_grad_(False).eval().to(self.device))
        return self._teacher[0]

    def on_fit_end(self) -> None:
        self._teacher.clear()

    @torch.no_grad()
    def half_denoised(self, batch: TrainBatch) -> tuple[Tensor, Tensor]:
        """Latents (B, C, h, w) on the way to the concept, and the timesteps (B,) they stopped at;
        one number of steps for the batch, so that it can be sampled together."""
        shape = self.encode(batch).shape[1:]
        latents = draws.normal(shape, self.seed, "noise", batch.draws)
        stop = int(draws.timesteps(self.ddim_steps, self.seed, "esd stop", batch.draws[:1])[0])
        return towards(
            self.backbone, self.concept, latents, self.ddim_steps, stop, self.start_guidance
        )


@torch.no_grad()
def towards(
    backbone: Backbone, prompt: str, latents: Tensor, steps: int, stop: int, guidance: float
) -> tuple[Tensor, Tensor]:
    """DDIM (arXiv 2010.02502, eq. 12, eta 0) from pure noise: the latents after `stop` of `steps`
    steps and the timestep they have reached, (B,) int64."""
    total = backbone.num_train_timesteps
    schedule = (torch.arange(steps, 0, -1, device=latents.device) * total // steps - 1).tolist()
    count = len(latents)
    texts = backbone.embed([""] * count), backbone.embed([prompt] * count)
    for now, then in pairwise(schedule[: stop + 1]):
        at = torch.full((count,), now, device=latents.device)
        without, with_prompt = (backbone.predict(latents, at, text) for text in texts)
        output = without + guidance * (with_prompt - without)
        clean, epsilon = backbone.origin_and_noise(latents, output, at)
        signal, noise = backbone.signal_and_sigma(torch.full_like(at, then))
        latents = signal * clean + noise * epsilon
    return latents, torch.full((count,), schedule[stop], device=latents.device)
