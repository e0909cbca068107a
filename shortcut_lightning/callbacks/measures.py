"""The metrics of an evaluation: which encoder, which number, which name.

Each takes an encoder (`shortcut_lightning.metrics`); the pocket's are the defaults. Networks are
loaded when the run starts, so that one which cannot be had is reported before hours of training.
"""

from abc import ABC
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from shortcut_lightning.callbacks.evaluation import EvaluationCallback, SubjectData, prompts_of
from shortcut_lightning.callbacks.samples import Samples
from shortcut_lightning.faces import FaceEncoder
from shortcut_lightning.files.folders import of_pocket
from shortcut_lightning.metrics.clip_alignment import (
    image_image_similarity,
    image_text_similarity,
    without_words,
)
from shortcut_lightning.metrics.encoders import (
    ImageEncoder,
    ImageTextEncoder,
    PocketAttributes,
    PocketClip,
    PocketIdentity,
    image_features,
    text_features,
)
from shortcut_lightning.metrics.estimate import Estimate
from shortcut_lightning.metrics.frechet import (
    frechet_distance,
    kernel_distance,
    sample_size_warning,
)
from shortcut_lightning.metrics.identity import identities

TRAINED_ON = (
    "There are no held-out references (data.reference_data_dir): the images are compared with "
    "photographs that were trained on, so copying those would score best."
)
OTHER_WORLD = (
    "The pocket's own networks measured images that are not of its drawn world: their numbers can "
    "be compared with each other, and mean little in themselves. Set another encoder."
)


class NetworkCallback(EvaluationCallback, ABC):
    """An evaluation callback whose network is there, or says why not, before anything is trained.

    Args:
        encoder: The network that looks at the images.
    """

    def __init__(self, encoder: ImageEncoder | FaceEncoder) -> None:
        self.encoder = encoder
        self.extractor = encoder.name
        self._warnings: list[str] = []

    def load(self) -> None:
        _ = self.encoder.network

    def warnings(self) -> list[str]:
        return self._warnings


class EncoderCallback(NetworkCallback, ABC):
    """An evaluation callback with an encoder of images.

    Args:
        encoder: The network that looks at the images.
    """

    def __init__(self, encoder: ImageEncoder) -> None:
        super().__init__(encoder)
        self.encoder: ImageEncoder = encoder

    def features(self, samples: Samples) -> Tensor:
        """(N, D) features of the generated images."""
        return image_features(self.encoder, samples.images, samples.device)

    def reference_features(self, samples: Samples, datamodule: SubjectData | None) -> Tensor:
        """(R, D) features of the references; (0, 0) and a warning where the data has none."""
        references = getattr(datamodule, "references", [])
        self._warnings = list(self._cautions(datamodule))
        if not references:
            self._warnings.append(
                f"{type(self).__name__} compares with reference images, and the data has none."
            )
            return torch.empty(0, 0)
        images = torch.stack([example.image for example in references])
        return image_features(self.encoder, images, samples.device)

    def _cautions(self, datamodule: SubjectData | None) -> Iterator[str]:
        source = str(getattr(datamodule, "instance_data_dir", "pocket:"))
        if self.encoder.only_pocket and not of_pocket(source):
            yield OTHER_WORLD
        if not getattr(datamodule, "held_out", True):
            yield TRAINED_ON


class ClipAlignment(EncoderCallback):
    """`clip_t`, image against its prompt, and `clip_i`, image against the references.

    Args:
        encoder: A CLIP.
        ignored_words: Words taken out of a prompt before it is compared: the made-up identifier
            of the subject says nothing to a CLIP that never saw it. Where none of them names the
            subject, those by which `data.instance_prompt` differs from `data.class_prompt` go too;
            an empty list takes nothing out.
    """

    def __init__(
        self,
        encoder: ImageTextEncoder = PocketClip(),  # noqa: B008
        ignored_words: Sequence[str] = ("sks",),
    ) -> None:
        super().__init__(encoder)
        self.encoder: ImageTextEncoder = encoder
        self.ignored_words = ignored_words

    def measure(self, samples: Samples, datamodule: SubjectData | None) -> dict[str, Estimate]:
        images = self.features(samples)
        words = [*self.ignored_words]
        said = prompts_of(datamodule)
        # Without a class prompt nothing tells a made-up word from one that a CLIP knows.
        if words and said.class_prompt and said.subject.isdisjoint(words):
            words += sorted(said.subject)
        prompts = [without_words(prompt, words) for prompt in samples.prompts]
        texts = text_features(self.encoder, prompts, samples.device)
        numbers = {"clip_t": image_text_similarity(images, texts)}
        references = self.reference_features(samples, datamodule)
        if len(references):
            numbers["clip_i"] = image_image_similarity(images, references)
        return numbers


class IdentityMatch(EncoderCallback):
    """`identity`: is it the same person, or thing, as in the references?

    Args:
        encoder: An identity encoder; for things rather than people, a DINO.
    """

    def __init__(self, encoder: ImageEncoder = PocketIdentity()) -> None:  # noqa: B008
        super().__init__(encoder)

    def measure(self, samples: Samples, datamodule: SubjectData | None) -> dict[str, Estimate]:
        references = self.reference_features(samples, datamodule)
        if not len(references):
            return {}
        return self.means(identity=identities(self.features(samples), references))


class FrechetDistance(EncoderCallback):
    """`fid_<encoder>` and `kid_<encoder>`: distance of the images to the references, as sets.

    Args:
        encoder: A feature extractor; its name becomes part of the metrics' names.
    """

    def __init__(self, encoder: ImageEncoder = PocketAttributes()) -> None:  # noqa: B008
        super().__init__(encoder)

    def measure(self, samples: Samples, datamodule: SubjectData | None) -> dict[str, Estimate]:
        references = self.reference_features(samples, datamodule)
        if not len(references):
            return {}
        images = self.features(samples)
        warning = sample_size_warning(len(images), len(references), images.shape[1], self.extractor)
        if warning:
            self._warnings.append(warning)
        return {
            f"fid_{self.extractor}": frechet_distance(images, references),
            f"kid_{self.extractor}": kernel_distance(images, references),
        }
