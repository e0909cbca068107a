"""Quality by published networks where they are installed, and by CLIP-IQA with any CLIP."""

from functools import cached_property
from typing import Any

import torch

from shortcut_lightning.callbacks.evaluation import EvaluationCallback, SubjectData
from shortcut_lightning.callbacks.measures import EncoderCallback
from shortcut_lightning.callbacks.samples import Samples
from shortcut_lightning.metrics import paper_scores, pyiqa_scores
from shortcut_lightning.metrics.encoders import ImageTextEncoder, image_features, text_features
from shortcut_lightning.metrics.estimate import Estimate
from shortcut_lightning.metrics.two_prompts import share_of_second


class ClipIqa(EncoderCallback):
    """`clip_iqa_<encoder>`, the probability of "Good photo." against "Bad photo." (CLIP-IQA, arXiv
    2207.12396, which takes CLIP's ResNet-50 without its positional embedding; any CLIP here).

    Args:
        encoder: A CLIP that knows good from bad, so not the pocket's.
        good: The sentence for good pictures.
        bad: The sentence for bad ones.
    """

    def __init__(
        self, encoder: ImageTextEncoder, good: str = "Good photo.", bad: str = "Bad photo."
    ) -> None:
        super().__init__(encoder)
        self.encoder: ImageTextEncoder = encoder
        self.good = good
        self.bad = bad

    def measure(self, samples: Samples, datamodule: SubjectData | None) -> dict[str, Estimate]:
        self._warnings = list(self._cautions(datamodule))
        texts = text_features(self.encoder, [self.bad, self.good], samples.device)
        seen = image_features(self.encoder, samples.images, samples.device)
        return self.means(**{f"clip_iqa_{self.extractor}": share_of_second(seen, texts)})


class PyiqaQuality(EvaluationCallback):
    """`iqa_<name>`, the mean score of a network of pyiqa's, in its own range and sense.

    Args:
        name: As pyiqa has it, for example `liqe`, `clipiqa`, `musiq`.
    """

    def __init__(self, name: str = "liqe") -> None:
        self.name = name
        self.extractor = f"pyiqa-{name}"

    @cached_property
    def metric(self) -> Any:
        """pyiqa's metric, loaded at first use."""
        return pyiqa_scores.load(self.name)

    def load(self) -> None:
        _ = self.metric

    def measure(self, samples: Samples, datamodule: SubjectData | None) -> dict[str, Estimate]:
        return self.means(**{f"iqa_{self.name}": self.scores(samples)})

    def scores(self, samples: Samples) -> torch.Tensor:
        """(N,) float32."""
        return pyiqa_scores.scores(
            self.metric.to(samples.device), samples.images.to(samples.device)
        )


class PaperQuality(PyiqaQuality):
    """`q_paper`, Q of arXiv 2406.18944 as defined: the mean of LIQE brought to [-1, 1] and of
    MetaCloak's CLIP_IQAC.

    Args:
        clip: The CLIP of CLIP_IQAC; published with ViT-B/32.
        good: Its sentence for good pictures.
        bad: Its sentence for bad ones.
    """

    def __init__(
        self,
        clip: ImageTextEncoder,
        good: str = "a good photo of face",
        bad: str = "a bad photo of face",
    ) -> None:
        super().__init__("liqe")
        self.clip = clip
        self.good = good
        self.bad = bad

    def load(self) -> None:
        super().load()
        _ = self.clip.network

    def measure(self, samples: Samples, datamodule: SubjectData | None) -> dict[str, Estimate]:
        texts = text_features(self.clip, [self.good, self.bad], samples.device)
        seen = image_features(self.clip, samples.images, samples.device)
        iqac = 1 - 2 * share_of_second(seen, texts)
        liqe = (self.scores(samples) - 1) / 2 - 1
        return self.means(q_paper=paper_scores.quality(liqe, iqac))
