"""How good pictures are: by the pocket's classifier, and as papers score it."""

from functools import cached_property
from typing import Annotated, Any

from shortcut_lightning.callbacks.evaluation import EvaluationCallback, SubjectData
from shortcut_lightning.callbacks.measures import OTHER_WORLD, EncoderCallback
from shortcut_lightning.callbacks.samples import Samples
from shortcut_lightning.files.folders import of_pocket
from shortcut_lightning.metrics import paper_scores
from shortcut_lightning.metrics.encoders import (
    ImageEncoder,
    ImageTextEncoder,
    PocketClip,
    PocketIdentity,
    image_features,
    text_features,
)
from shortcut_lightning.metrics.estimate import Estimate, mean_estimate
from shortcut_lightning.metrics.two_prompts import share_of_second
from shortcut_lightning.pocket import networks
from shortcut_lightning.ranges import Between


class Quality(EvaluationCallback):
    """`quality_pocket` and `noisy_pocket`: the probability, by the pocket's classifier, that a
    generated image is clean, or noisy; the rest is blurry."""

    extractor = "pocket-attributes"

    @cached_property
    def network(self) -> Any:
        """The classifier."""
        return networks.load_attribute_classifier()

    def __init__(self) -> None:
        self._warnings: list[str] = []

    def load(self) -> None:
        _ = self.network

    def measure(self, samples: Samples, datamodule: SubjectData | None) -> dict[str, Estimate]:
        source = str(getattr(datamodule, "instance_data_dir", "pocket:"))
        self._warnings = [] if of_pocket(source) else [OTHER_WORLD]
        shares = self.network.to(samples.device).quality(samples.images)
        return self.means(quality_pocket=shares[:, 0], noisy_pocket=shares[:, 1])

    def warnings(self) -> list[str]:
        return self._warnings


class PaperScores(EncoderCallback):
    """The scores of arXiv 2406.18944 with networks that are at hand: `ims_cos_<encoder>`, plain
    identity; `ims_ref_<encoder>`, by the published threshold rule; `clip_iqac`; and, with the
    pocket's classifier in LIQE's place, `q_pocket` and `avg_pocket`, the mean of plain identity and
    Q. The published IMS mixes two face encoders, 0.7 and 0.3, which do not come with this package.

    Args:
        encoder: An identity encoder.
        clip: A CLIP, for "good" against "bad".
        good: The sentence for good pictures.
        bad: The sentence for bad ones; the pocket's CLIP knows "noisy" rather than "bad".
        threshold: Cosine distance below which the published rule calls two pictures one person.
    """

    def __init__(
        self,
        encoder: ImageEncoder = PocketIdentity(),  # noqa: B008
        clip: ImageTextEncoder = PocketClip(),  # noqa: B008
        good: str = "a high quality photo of a face",
        bad: str = "a low quality noisy photo of a face",
        threshold: Annotated[float, Between(0, 2)] = paper_scores.THRESHOLD,
    ) -> None:
        super().__init__(encoder)
        self.clip = clip
        self.good = good
        self.bad = bad
        self.threshold = threshold

    @cached_property
    def classifier(self) -> Any:
        """The pocket's attribute classifier."""
        return networks.load_attribute_classifier()

    def load(self) -> None:
        super().load()
        _ = self.clip.network, self.classifier

    def measure(self, samples: Samples, datamodule: SubjectData | None) -> dict[str, Estimate]:
        texts = text_features(self.clip, [self.good, self.bad], samples.device)
        seen = image_features(self.clip, samples.images, samples.device)
        iqac = 1 - 2 * share_of_second(seen, texts)
        perceptual = 2 * self.classifier.to(samples.device).quality(samples.images)[:, 0] - 1
        q = paper_scores.quality(perceptual, iqac)
        numbers = {"clip_iqac": mean_estimate(iqac), "q_pocket": mean_estimate(q)}
        references = self.reference_features(samples, datamodule)
        if not len(references):
            return numbers
        images = self.features(samples)
        plain = paper_scores.plain_identity(images, references)
        rule = paper_scores.thresholded_identity(images, references, self.threshold)
        return numbers | {
            f"ims_cos_{self.extractor}": mean_estimate(plain),
            f"ims_ref_{self.extractor}": mean_estimate(rule),
            **self.means(avg_pocket=(plain + q) / 2),
        }
