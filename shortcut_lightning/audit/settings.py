"""Settings of an audit that belong together and are typed rarely."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from shortcut_lightning.audit.evaluator import FPRS, RESAMPLES
from shortcut_lightning.metrics.encoders import ImageEncoder, PocketClip
from shortcut_lightning.ranges import Between, Count, ProperShare, ranged


@ranged
@dataclass(frozen=True)
class Controls:
    """What is looked at beside the scores, so that no difference is mistaken for membership.

    Args:
        blind: Look for differences between the sets that need no model under audit.
        blind_encoder: Whose embeddings of the images are among the places looked at.
        captions: Ask the headline score with fixed, shuffled and swapped captions.
        fixed_caption: What the images say under the control of one caption.
    """

    blind: bool = True
    blind_encoder: ImageEncoder = PocketClip()  # noqa: RUF009
    captions: bool = True
    fixed_caption: str = "a photo"

    def __post_init__(self) -> None:
        if self.captions and not self.fixed_caption.strip():
            raise ValueError(
                "audit.controls.fixed_caption is empty; give one sentence, such as 'a photo', or "
                "audit.controls.captions false."
            )


@ranged
@dataclass(frozen=True)
class Statistics:
    """How sure the numbers have to be.

    Args:
        fprs: Shares of false accusations that are reported.
        resamples: Bootstrap samples.
        permutations: Relabellings of the test of the set as a whole.
        ladder_error: Largest share of shadow images that a rung of the ladder decides wrongly, of
            each side.
    """

    fprs: Sequence[ProperShare] = FPRS
    resamples: Annotated[int, Between(100)] = RESAMPLES
    permutations: Count = 499
    ladder_error: Annotated[float, Between(0, 0.5, open="least")] = 0.05


@ranged
@dataclass(frozen=True)
class Asking:
    """How the models are asked: memory and time.

    Args:
        batch_size: Most rows of one call of the denoiser; halved when a GPU's memory runs out.
        images_per_chunk: Images held at a time.
        bf16: Asking the denoiser in bfloat16, but in float32 for SecMI, whose differences of
            nearly equal predictions it would blur. Half as much memory again for its weights.
        compile_denoiser: `torch.compile` the denoiser: costs a minute at the start of every
            process, and saves time for each picture on a GPU.
        device: "auto", "cpu", "cuda" or another of torch's names.
    """

    batch_size: Count = 64
    images_per_chunk: Count = 32
    bf16: bool = False
    compile_denoiser: bool = False
    device: str = "auto"
