"""CLIP alignment: does the picture show what the words say, and look like the references?

The two scores of DreamBooth (arXiv 2208.12242, section 4.2): the cosine between the embeddings of
image and prompt (CLIP-T), and of image and reference images (CLIP-I). Both are in [-1, 1] and are
not rescaled. torchmetrics' CLIPScore clamps at zero, multiplies by 100 and wants one library's
model; the two lines of algebra are written here for any encoder.
"""

import re
from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import normalize

from shortcut_lightning.metrics.estimate import Estimate, mean_estimate


def image_text_similarity(images: Tensor, texts: Tensor) -> Estimate:
    """Features (N, D) of images and of their own prompts -> mean cosine over the N pairs.

    Raises:
        ValueError: the numbers of images and prompts differ.
    """
    if len(images) != len(texts):
        raise ValueError(f"{len(images)} images but {len(texts)} prompts; each image needs its own")
    return mean_estimate((normalize(images, dim=-1) * normalize(texts, dim=-1)).sum(-1))


def image_image_similarity(images: Tensor, references: Tensor) -> Estimate:
    """Features (N, D) and (R, D) -> mean pairwise cosine; the interval is over the N images."""
    return mean_estimate((normalize(images, dim=-1) @ normalize(references, dim=-1).T).mean(dim=1))


def without_words(prompt: str, words: Sequence[str]) -> str:
    """The prompt with whole words taken out: an identifier such as "sks" means nothing to CLIP."""
    for word in words:
        prompt = re.sub(rf"(?<!\S){re.escape(word)}(?![\w<>])", "", prompt, flags=re.IGNORECASE)
    return re.sub(r"\s+([,.;:!?])", r"\1", re.sub(r"\s+", " ", prompt)).strip()
