"""Forget-Me-Not (arXiv 2303.17591): the denoiser unlearns to look at a concept's words.

It sees pictures of the concept with "a photo of <concept>", and the only loss is how much its
attention gives to those words. A baseline: what is not called by words is not forgotten.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from lightning.pytorch import Callback
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor

from shortcut_lightning.backbones.text_attention import text_attention, text_parameters
from shortcut_lightning.batch import TrainBatch
from shortcut_lightning.modules.dreambooth import DreamBooth
from shortcut_lightning.modules.trainable import check_denoiser_alone
from shortcut_lightning.ranges import Positive


class ForgetMeNot(DreamBooth):
    """Attention resteering on pictures of the concept; their captions are not used.

    In joint attention (Stable Diffusion 3) the loss is on what the picture's places give to the
    words among picture and text together, a form of ours: there a text also enters pooled, which no
    attention shows, and words mix from layer to layer. `compute.gradient_checkpointing` does not
    concern the denoiser, whose attention is read.

    Args:
        concept: Words for what is to be erased; after a textual inversion (`embeddings`), its word.
        prompt: What the pictures are called; `{concept}` stands for the concept.
        parts: What learns: `all` of the denoiser or `cross_attention`, in joint attention the
            text's side of it.
        use_pooler: Count the token that ends the text among the concept's.
        learning_rate: Of the denoiser.
        **dreambooth: What `DreamBooth` takes; the method is full fine-tuning of the chosen parts.
    """

    def __init__(
        self,
        concept: str = "",
        prompt: str = "a photo of {concept}",
        parts: Literal["all", "cross_attention"] = "all",
        use_pooler: bool = True,
        learning_rate: Positive = 2e-6,
        **dreambooth: Any,
    ) -> None:
        if not concept:
            raise ValueError("model.concept is empty; give words for what is to be erased.")
        if "{concept}" not in prompt:
            raise ValueError(f"model.prompt is '{prompt}'; it must hold '{{concept}}'.")
        check_denoiser_alone("ForgetMeNot", dreambooth)
        super().__init__(learning_rate=learning_rate, **dreambooth)
        reading = text_parameters(self.backbone.denoiser)
        if not reading:
            raise ValueError("ForgetMeNot needs attention to text; this model's denoiser has none.")
        if not self.backbone.reads_clip_alone:
            raise ValueError(
                "ForgetMeNot knows the places of words in CLIP, and this model reads its text by a "
                "T5 or a language model: take Stable Diffusion 3 without text_encoder_3, or use "
                "ErasedStableDiffusion."
            )
        for name, parameter in self.backbone.denoiser.named_parameters():
            parameter.requires_grad_(parts == "all" or name in reading)
        self.text = prompt.replace("{concept}", concept)
        self.positions = self._positions(prompt.split("{concept}"), concept, use_pooler)

    def configure_callbacks(self) -> list[Callback]:
        """None. It is asked before a strategy is set up: what comes after the last attention to
        text gets no gradient, and DDP would wait for it."""
        strategy = self.trainer.strategy
        if isinstance(strategy, DDPStrategy):
            strategy._ddp_kwargs.setdefault("find_unused_parameters", True)
        return []

    def _positions(self, around: Sequence[str], concept: str, use_pooler: bool) -> list[int]:
        """Places of the concept's tokens in the prompt, the token that begins it being 0; `around`
        is what the prompt says before, between and after."""
        count = self.backbone.count_tokens
        places: list[int] = []
        for number in range(1, len(around)):
            before = concept.join(around[:number])
            places += range(1 + count(before), 1 + count(before + concept))
        last = 1 + count(self.text)
        if last > self.backbone.prompt_length + 1:
            raise ValueError(
                f"model.prompt with model.concept has {last - 1} words of the vocabulary; the text "
                f"encoder takes {self.backbone.prompt_length}."
            )
        return [*places, *([last] if use_pooler else [])]

    def forward(self, batch: TrainBatch) -> dict[str, Tensor]:
        """The Frobenius norm of the attention to the concept, over all layers, heads, places and
        pictures together, as the published code takes it."""
        latents = self.encode(batch)
        conditioning = self.embed([self.text] * len(latents))
        timesteps = self.draw_timesteps(batch)
        noisy = self.backbone.add_noise(latents, self.draw_noise(batch, latents), timesteps)
        with text_attention(self.backbone.denoiser) as maps:
            self.backbone.predict(noisy, timesteps, conditioning)
        given = torch.cat([each[~batch.is_prior][..., self.positions].flatten() for each in maps])
        loss = given.norm()
        return {"loss": loss, "loss_instance": loss.detach(), "attention": given.detach().mean()}
