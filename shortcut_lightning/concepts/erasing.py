"""What a run does about the concepts its detector found: captions, loss weights, negative prompt.

One dataclass covers the method (Geom-Erasing, arXiv 2310.05873) and the ways it is compared with:
a caption tag is `caption: name`, a masked loss is `alpha: .inf`, filtering is `contaminated: drop`,
inpainting first is `contaminated: inpaint`, a plain negative prompt is `negative: name` alone, and
safe latent diffusion is that with `safety`.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Literal

from torch import Tensor

from shortcut_lightning.batch import ConceptBox
from shortcut_lightning.concepts.geometry import Encoding, Grid, largest, shares
from shortcut_lightning.concepts.weights import check_alpha, latent_weights
from shortcut_lightning.prompts import Prompts, concept_tail, location_token
from shortcut_lightning.ranges import Between, Bins, Count, CountOrNone, Share, ranged
from shortcut_lightning.safe_guidance import SafeGuidance

Negative = Literal["none", "name", "name+all", "name+top-k"]


@ranged
@dataclass(frozen=True)
class Erasing:
    """Settings; the defaults do nothing.

    Args:
        caption: What training captions say about a detected concept: nothing, its name, or its name
            and the words of the bins it covers (`geometry`, for the model `GeometryErasure`).
        grid_size: Bins along a side; the model's `grid_size` must be the same.
        encoding: Words of a box: every bin it touches, those along its boundary, or two corners.
        max_bins: At most so many bins of one concept in a caption; 0 for as many as fit.
        names: Name in captions for a detector's label; without one the label itself. A name that
            captions use as an ordinary word ("text") is better replaced.
        alpha: Loss weight outside over inside of covered bins: 1 is even, `.inf` leaves them out.
        contaminated: Whether images with a concept are kept, dropped, or inpainted and kept.
        caption_drop: Share of examples whose caption is emptied while the concepts stay in.
        negative: What the tuned model's negative prompt names: nothing, the concepts, the concepts
            with all bins, or with the `top_k` bins most frequent in training.
        top_k: See `negative`.
        safety: Avoid the negative prompt (also that of `data.evaluation` and of decoupling) by safe
            latent diffusion (arXiv 2211.05105), in every arm that has one; three questions to the
            denoiser in each step where there are two.
    """

    caption: Literal["none", "name", "geometry"] = "none"
    grid_size: Bins = 8
    encoding: Encoding = "bins"
    max_bins: CountOrNone = 0
    names: dict[str, str] = field(default_factory=dict)
    alpha: Annotated[float, Between(0, open="least", infinite=True)] = 1.0
    contaminated: Literal["keep", "drop", "inpaint"] = "keep"
    caption_drop: Share = 0.0
    negative: Negative = "none"
    top_k: Count = 16
    safety: SafeGuidance | None = None

    def __post_init__(self) -> None:
        check_alpha(self.alpha)

    @property
    def reweights(self) -> bool:
        """Whether the loss weighs places differently."""
        return self.alpha != 1

    @property
    def uses_locations(self) -> bool:
        """Whether any prompt has words for bins, which the model must know."""
        return self.caption == "geometry" or self.negative in ("name+all", "name+top-k")

    def loss_weights(self, boxes: Iterable[ConceptBox], height: int, width: int) -> Tensor:
        """(1, height, width) on the latent grid, mean one."""
        bins = Grid(self.grid_size).bins(boxes)
        return latent_weights(bins, self.grid_size, self.alpha, height, width)


class Captioner:
    """Writes a run's training captions and negative prompt, within the text encoder's length.

    `usage` counts captions that were shortened (`captions shortened`) and concepts that lost bins
    to `max_bins` (`capped`) or for want of room (`crowded out`).
    """

    def __init__(
        self, erasing: Erasing, prompts: Prompts, count: Callable[[str], int], room: int
    ) -> None:
        """`count` gives the words of a text in the model's vocabulary, `room` how many fit.

        Raises ValueError when the words of bins are not words of the model, or not all it has.
        """
        self.erasing, self.prompts, self.count, self.room = erasing, prompts, count, room
        self.grid = Grid(erasing.grid_size)
        self.usage: Counter[str] = Counter()
        last = location_token(len(self.grid) - 1)
        if erasing.uses_locations and count(last) != 1:
            raise ValueError(
                f"data.erasing writes words of bins such as {last}, which the model does not know: "
                "use the model GeometryErasure with the same model.grid_size, or set "
                "data.erasing.caption to 'name' and data.erasing.negative to 'none' or 'name'."
            )
        beyond = location_token(len(self.grid))
        if erasing.uses_locations and count(beyond) == 1:
            raise ValueError(
                f"data.erasing.grid_size is {erasing.grid_size}, but the model knows {beyond}, so "
                "its bins are smaller: set data.erasing.grid_size and model.grid_size to the same."
            )

    def instance(self, caption: str, boxes: Iterable[ConceptBox]) -> str:
        """The training prompt of an image that shows `boxes`."""
        tail = self.tail(boxes)
        if not tail and not self.prompts.decoupling.training:  # nothing at the end to be cut off
            return self.prompts.instance(caption)
        prompt = self.prompts.fitted(caption, tail, self.fits)
        self.usage["captions shortened"] += prompt != self.prompts.instance(caption, tail)
        return prompt

    def tail(self, boxes: Iterable[ConceptBox]) -> str:
        """The concepts of an image as they stand at the end of its caption; "" where none is."""
        if self.erasing.caption == "none":
            return ""
        found: dict[str, dict[int, float]] = {}
        for label, bins in self.grid.by_label(boxes, self.erasing.encoding).items():
            known = found.setdefault(self.name(label), {})
            found[self.name(label)] = {
                bin: max(known.get(bin, 0.0), bins.get(bin, 0.0)) for bin in {**known, **bins}
            }
        if self.erasing.caption == "name":
            return concept_tail({name: [] for name in found})
        return concept_tail(self._within(found, partial(self.prompts.instance, "")))

    def negative(self, labels: Iterable[str], boxes: Sequence[Sequence[ConceptBox]] = ()) -> str:
        """The tuned model's negative prompt against the concepts of these labels; `boxes` of the
        training images, as training shows them, tell which bins are frequent."""
        names = list(dict.fromkeys(self.name(label) for label in sorted(labels)))
        match self.erasing.negative:
            case "none":
                return self.prompts.negative()
            case "name":
                wanted: dict[str, dict[int, float]] = {name: {} for name in names}
            case "name+all":
                wanted = {name: dict.fromkeys(range(len(self.grid)), 1.0) for name in names}
            case "name+top-k":
                wanted = {name: self._frequent(name, boxes) for name in names}
        bins = self._within(wanted, self.prompts.negative, capped=False)
        return self.prompts.negative(concept_tail(bins))

    def fits(self, prompt: str) -> bool:
        """Whether the text encoder takes all of the prompt."""
        return self.count(prompt) <= self.room

    def name(self, label: str) -> str:
        """What captions call a detector's label."""
        return self.erasing.names.get(label, label)

    def _frequent(self, name: str, boxes: Sequence[Sequence[ConceptBox]]) -> dict[int, float]:
        often: Counter[int] = Counter()
        for image in boxes:
            named = [box._replace(label=name) for box in image if self.name(box.label) == name]
            often.update(self.grid.by_label(named, self.erasing.encoding).get(name, {}).keys())
        top = sorted(often, key=lambda bin: (-often[bin], bin))[: self.erasing.top_k]
        return {bin: float(often[bin]) for bin in top}

    def _within(
        self,
        found: Mapping[str, dict[int, float]],
        written: Callable[[str], str],
        capped: bool = True,
    ) -> dict[str, list[int]]:
        """Bins of each name that fit beside all names and what `written` puts around them, most
        covered first where not all do."""
        wanted = {name: len(bins) for name, bins in found.items()}
        if capped and self.erasing.max_bins:
            self.usage["capped"] += sum(n > self.erasing.max_bins for n in wanted.values())
            wanted = {name: min(n, self.erasing.max_bins) for name, n in wanted.items()}
        beside = written(concept_tail({name: [] for name in found}))
        room = self.room - self.count(beside) - self.count(",")  # the one after a caption
        granted = shares(list(wanted.values()), room)
        self.usage["crowded out"] += sum(
            got < n for got, n in zip(granted, wanted.values(), strict=True)
        )
        return {name: largest(found[name], got) for name, got in zip(found, granted, strict=True)}
