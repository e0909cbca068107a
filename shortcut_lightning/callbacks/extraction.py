"""What has the identifier learned? Sample it alone, and with its class."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from shortcut_lightning.batch import PromptBatch
from shortcut_lightning.callbacks.evaluation import SubjectData, prompts_of
from shortcut_lightning.callbacks.measures import EncoderCallback
from shortcut_lightning.callbacks.samples import Samples
from shortcut_lightning.metrics.encoders import (
    ImageTextEncoder,
    PocketClip,
    image_features,
    text_features,
)
from shortcut_lightning.metrics.estimate import Estimate, mean_estimate
from shortcut_lightning.metrics.high_frequency import high_frequency_share
from shortcut_lightning.metrics.two_prompts import lead_of_second, share_of_second
from shortcut_lightning.ranges import Seed
from shortcut_lightning.report import concepts as pages
from shortcut_lightning.report.page import Section
from shortcut_lightning.report.pictures import to_pil

_BATCH = 8


class ConceptExtraction(EncoderCallback):
    """Samples the identifier alone and with its class, without any suffix or negative prompt:
    `extracted_noise_alone`, `extracted_noise_with_class` (how much more noise than concept a CLIP
    sees, 0 to 1), `extracted_lead_...`, the difference of the two cosines behind that share, which
    does not saturate, and `extracted_texture_...`, the share of fine texture. An identifier that
    took the shortcut draws noise when alone (arXiv 2406.18944, section 3).

    Args:
        encoder: A CLIP.
        alone: The prompt of the identifier alone. Here and in what follows `{instance}` and
            `{class}` stand for the data's prompts, `{subject}` for the words by which they differ.
        with_class: The prompt with its class.
        concept: What the images should be seen as.
        noise: What a shortcut would make of them.
        seeds: One image of each prompt for each.
    """

    def __init__(
        self,
        encoder: ImageTextEncoder = PocketClip(),  # noqa: B008
        alone: str = "a photo of {subject}",
        with_class: str = "{instance}",
        concept: str = "a photo of a person",
        noise: str = "a noisy pattern",
        seeds: Sequence[Seed] = (0, 1, 2, 3, 4, 5, 6, 7),
    ) -> None:
        super().__init__(encoder)
        if not seeds:
            raise ValueError("ConceptExtraction.seeds is empty; give at least one.")
        self.encoder: ImageTextEncoder = encoder
        self.alone = alone
        self.with_class = with_class
        self.concept = concept
        self.noise = noise
        self.seeds = list(seeds)
        self._module: Any = None
        self._sections: dict[str, list[Section]] = {}  # by subject

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._module = pl_module

    def measure(self, samples: Samples, datamodule: SubjectData | None) -> dict[str, Estimate]:
        if samples.arm != "tuned":
            return {}
        self._warnings, self._sections[self.of_whom] = list(self._cautions(datamodule)), []
        alone, with_class, concept, noise_words = (
            prompts_of(datamodule).evaluated(text)
            for text in (self.alone, self.with_class, self.concept, self.noise)
        )
        texts = text_features(self.encoder, [concept, noise_words], samples.device)
        numbers = {}
        for name, prompt in (("alone", alone), ("with_class", with_class)):
            images = self._sample(prompt)
            features = image_features(self.encoder, images, samples.device)
            noise = share_of_second(features, texts)
            numbers[f"extracted_noise_{name}"] = mean_estimate(noise)
            numbers[f"extracted_lead_{name}"] = mean_estimate(lead_of_second(features, texts))
            numbers[f"extracted_texture_{name}"] = mean_estimate(high_frequency_share(images))
            pictures = [
                (f"noise {share:.0%}", to_pil(image))
                for image, share in zip(images, noise.tolist(), strict=True)
            ]
            lead = f"{len(images)} images of '{prompt}' by the tuned model, without suffixes."
            title = f"Extracted: '{prompt}' {self.of_whom}".rstrip()
            self._sections[self.of_whom].append(pages.section(title, lead, pictures))
        return numbers

    def show(self, samples: Mapping[str, Samples], trainer: Trainer, folder: Path) -> list[Section]:
        return [section for sections in self._sections.values() for section in sections]

    @torch.no_grad()
    def _sample(self, prompt: str) -> Tensor:
        images = []
        for start in range(0, len(self.seeds), _BATCH):
            seeds = torch.tensor(self.seeds[start : start + _BATCH])
            batch = PromptBatch([prompt] * len(seeds), [""] * len(seeds), seeds, seeds)
            with self._module.trainer.precision_plugin.forward_context():
                images.append(self._module.sample(batch).float().cpu())
        return torch.cat(images)
