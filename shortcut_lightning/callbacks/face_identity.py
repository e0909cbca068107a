"""Identity by a face encoder, which may find no face at all."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from shortcut_lightning.callbacks.evaluation import SubjectData
from shortcut_lightning.callbacks.measures import NetworkCallback
from shortcut_lightning.callbacks.samples import Samples
from shortcut_lightning.faces import FaceEncoder
from shortcut_lightning.metrics.estimate import Estimate, mean_estimate


class FaceIdentity(NetworkCallback):
    """`face_missing_<encoder>`, the share of generated images without a face (FDFR), and
    `face_match_<encoder>`, the mean cosine of the faces found to the references' mean face (ISM;
    both of Anti-DreamBooth, arXiv 2303.15433, section 5.1). Neither says much without the other:
    a model that draws one good face in ten matches well.

    Args:
        encoder: Finds the face and tells whose it is; `shortcut_lightning.faces`.
    """

    def __init__(self, encoder: FaceEncoder) -> None:
        super().__init__(encoder)
        self.encoder: FaceEncoder = encoder

    def measure(self, samples: Samples, datamodule: SubjectData | None) -> dict[str, Estimate]:
        self._warnings = []
        found = [self.encoder.embedding(image) for image in samples.images]
        missing = torch.tensor([float(each is None) for each in found])
        numbers = {f"face_missing_{self.extractor}": mean_estimate(missing)}
        references = self._known([e.image for e in getattr(datamodule, "references", [])])
        if not references:
            self._warnings.append(f"{self.extractor} finds no face in the references.")
            return numbers
        faces = [each for each in found if each is not None]
        if not faces:
            self._warnings.append(f"{self.extractor} finds no face in what the model draws.")
            return numbers
        centre = normalize(torch.stack(references).mean(dim=0), dim=0)
        cosines = torch.stack([normalize(face, dim=0) @ centre for face in faces])
        return numbers | {f"face_match_{self.extractor}": mean_estimate(cosines)}

    def _known(self, images: list[Tensor]) -> list[Tensor]:
        found = (self.encoder.embedding(image) for image in images)
        return [normalize(face, dim=0) for face in found if face is not None]
