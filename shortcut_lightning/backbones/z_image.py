"""Z-Image, base and Turbo, and every model in the same folder layout.

One stream of tokens: those of the picture and, of its own length for each prompt, those of a
language model (Qwen3 with its chat template, the states before the last layer). Its time runs the
other way, (1000 - t) / 1000, and its output is the negative of the flow's.
"""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import ZImagePipeline
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from shortcut_lightning.backbones import lora
from shortcut_lightning.backbones.base import Conditioning, in_its_dtype
from shortcut_lightning.backbones.flow import FlowTransformer


class ZImage(FlowTransformer):
    """Latent rectified flow with a language model as its text encoder."""

    pipeline_class = ZImagePipeline
    lora_settings = lora.UNET
    steerable = False  # its pipeline asks for the prompts in another order
    thinking = True
    facts = (*FlowTransformer.facts, "turbo")
    turbo = 0  # 1 by its name alone, as nothing in the published folders says so, or as saved here

    def _measure(self) -> None:
        super()._measure()
        self.turbo = int(self.turbo or "turbo" in self.source.lower())
        self.usual_guidance = 1.0 if self.turbo else 5.0

    @property
    def distilled(self) -> str:
        if not self.turbo:
            return ""
        return (
            "Z-Image-Turbo is distilled to a few steps, and what is trained on it unlearns them: "
            "train Z-Image, and use the adapter on this one"
        )

    @property
    def remarks(self) -> Sequence[str]:
        if not self.turbo:
            return ()
        return [
            "The model is distilled to a few steps and meant to be sampled without guidance "
            "(model.sampling.guidance_scale 1): its prediction for the empty prompt, CLiD's "
            "unconditional branch, was distilled away, and negative prompts, also those of "
            "decoupling and "
            "location words, act only with guidance above 1, which it was not made for."
        ]

    def embed(self, prompts: Sequence[str]) -> Conditioning:
        with self.using(self.text_encoder):
            rows, _ = self.pipeline().encode_prompt(
                list(prompts),
                device=self.device,
                do_classifier_free_guidance=False,
                max_sequence_length=self.max_sequence_length,
            )
        lengths = torch.tensor([len(row) for row in rows], device=self.device)
        # To one length, so that prompts embedded apart can be put together.
        end = rows[0].new_zeros(self.max_sequence_length, rows[0].shape[-1])
        hidden = pad_sequence([*rows, end], batch_first=True)[:-1]
        mask = torch.arange(self.max_sequence_length, device=self.device) < lengths[:, None]
        return Conditioning(hidden.float(), mask=mask)

    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        with in_its_dtype(self.denoiser, self.device):
            output = self.denoiser(
                list(noisy.unsqueeze(2).unbind(0)),
                1 - self.sigmas[timesteps],
                _texts(conditioning),
                return_dict=False,
            )[0]
        return -torch.stack(list(output)).squeeze(2).float()

    def stock_guidance(self, guidance_scale: float) -> float:
        """This pipeline counts from 0, which is none."""
        return max(guidance_scale - 1, 0.0)

    def prompt_arguments(
        self, prompts: Sequence[str], negative_prompts: Sequence[str]
    ) -> dict[str, Any]:
        texts = [_texts(self.embed(each)) for each in (prompts, negative_prompts)]
        return {"prompt_embeds": texts[0], "negative_prompt_embeds": texts[1]}


def _texts(conditioning: Conditioning) -> list[Tensor]:
    """(L_i, D) for each prompt, without what it was filled up with."""
    mask = conditioning.mask
    assert mask is not None
    return [row[kept] for row, kept in zip(conditioning.hidden, mask, strict=True)]
