"""Asks models about images, chunk by chunk, so that memory does not grow with their number.

The order is: load a chunk, encode it once, then every model, then every score. Rows that a ledger
already holds are not asked for again.
"""

import inspect
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from shortcut_lightning.backbones.base import Backbone, Conditioning
from shortcut_lightning.cluster import InProcess, Pool, Work
from shortcut_lightning.compiling import compiled, many_forms
from shortcut_lightning.files.cache import code_of
from shortcut_lightning.freezing import frozen, halved
from shortcut_lightning.membership.ledger import Ledger
from shortcut_lightning.membership.model import Model
from shortcut_lightning.membership.pictures import Picture, require_captions
from shortcut_lightning.membership.probe import Chunk, Probe
from shortcut_lightning.ranges import Count, Ranged, Seed

if TYPE_CHECKING:
    from shortcut_lightning.membership.base import Score

Rows = dict[str, np.ndarray]  # row of a picture -> its features (F,) float64
VERSION = 3  # raise it when numbers change for the same settings


class Engine(Ranged):
    """Measures scores.

    Args:
        models: The models by role, such as "target", "shadow" and "base". Word weights of the
            importance reducer come from the last of them.
        folder: Where rows are kept; None for memory only.
        seed: Of the noise of every image.
        batch_size: Most rows of one call of the denoiser; halved when a GPU's memory runs out.
        images_per_chunk: Images that are held at a time.
        bf16: Compute the denoiser in bfloat16, for scores that allow it; half as much memory again
            for its weights.
        compile_denoiser: `torch.compile` the denoiser while it is asked: costs a minute at the
            start of every process, and saves time where it goes into launching a GPU's kernels.
        share: Reuse losses that several scores ask for. Off, `seconds` are each score's own.
        progress: Show a bar.
        pool: Who asks the models.

    Attributes:
        seconds: Seconds spent in each score, over all models and images; of several scores that
            measure the same, in the first.
    """

    def __init__(
        self,
        models: Mapping[str, Backbone],
        *,
        folder: Path | None = None,
        seed: Seed = 0,
        batch_size: Count = 64,
        images_per_chunk: Count = 32,
        bf16: bool = False,
        compile_denoiser: bool = False,
        share: bool = True,
        progress: bool = True,
        pool: Pool = InProcess(),  # noqa: B008
    ) -> None:
        self.models = {role: Model(backbone, bf16) for role, backbone in models.items()}
        self.folder = folder
        self.seed = seed
        self.batch_size = batch_size
        self.images_per_chunk = images_per_chunk
        self.bf16 = bf16
        self.compile_denoiser = compile_denoiser
        self.share = share
        self.progress = progress
        self.pool = pool
        self.seconds: dict[str, float] = {}
        self._constants: dict[tuple[str, str], Conditioning] = {}
        self._ledgers: dict[tuple[str, str], Ledger] = {}
        self._books: dict[str, Ledger] = {}

    def measure(
        self, pictures: Sequence[Picture], scores: Mapping[str, "Score"], roles: Sequence[str]
    ) -> dict[str, dict[str, Rows]]:
        """Score name -> role -> rows of at least these pictures; see also `rows`.

        Raises ValueError when a score needs captions and a picture has none.
        """
        for name, score in scores.items():
            if score.needs_captions:
                require_captions(pictures, name)
        books = {(n, r): self._ledger(n, score, r) for n, score in scores.items() for r in roles}
        todo = [p for p in pictures if any(p.row not in book.rows for book in books.values())]
        todo = list({each.row: each for each in todo}.values())
        chunks = [
            todo[i : i + self.images_per_chunk] for i in range(0, len(todo), self.images_per_chunk)
        ]
        asked = [
            Asked(
                chunk,
                [k for k, book in books.items() if not all(p.row in book.rows for p in chunk)],
            )
            for chunk in chunks
        ]
        work = Measuring(self, dict(scores), tuple(roles))
        device = self.models[roles[0]].device
        bar = tqdm(total=len(todo), desc="membership", unit="image", disable=not self.progress)
        with bar:
            for number, found in self.pool.map(work, asked, device):
                self._keep(chunks[number], found, books)
                bar.update(len(chunks[number]))
        return {n: {r: books[n, r].rows for r in roles} for n in scores}

    def rows(self, name: str, role: str) -> Rows:
        """What is known of a score on a model, after `measure`."""
        return self._ledgers[name, role].rows

    def asked(
        self, part: "Asked", scores: Mapping[str, "Score"], roles: Sequence[str]
    ) -> list["Found"]:
        """What the models say of a chunk; see `Measuring`."""
        chunk = Chunk(part.pictures, self.models[roles[0]].device, self.seed)
        found = []
        for role in roles:
            model = self.models[role]
            probe = Probe(
                chunk, model, self._constants, self.anchor, self.batch_size, share=self.share
            )
            for name, score in scores.items():
                if (name, role) not in part.needed:
                    continue
                model.bf16 = self._bf16(score)
                started = time.perf_counter()
                # Not where the weights themselves are differentiated, or weigh words in float32.
                once = model.bf16 and not score.asks_weights and not score.asks_anchor
                with halved(model.backbone.denoiser, once):
                    features = self._ask(score, probe).cpu().numpy()
                seconds = time.perf_counter() - started
                if not np.isfinite(features).all():
                    bad = [
                        p.name
                        for p, row in zip(part.pictures, features, strict=True)
                        if not np.isfinite(row).all()
                    ]
                    raise ValueError(
                        f"{name} is not a finite number for {', '.join(bad[:5])} on the {role} "
                        "model; try audit.compute.bf16: false, or check that the model's weights "
                        "are whole."
                    )
                found.append(Found(name, role, features, seconds))
        return found

    def _keep(
        self,
        pictures: Sequence[Picture],
        found: Sequence["Found"],
        books: Mapping[tuple[str, str], Ledger],
    ) -> None:
        """Rows are written once the chunk is done: what shares a batch changes their last digits,
        and a chunk that was cut off is asked as a whole again."""
        names = [each.row for each in pictures]
        for name, role, features, seconds in found:
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds
            book = books[name, role]
            new = [i for i, row in enumerate(names) if row not in book.rows]
            book.append([names[i] for i in new], features[new])

    def _ask(self, score: "Score", probe: Probe) -> torch.Tensor:
        while True:
            try:
                return score.measure(probe).float()
            except torch.OutOfMemoryError:
                if probe.batch_size == 1:
                    raise
                torch.cuda.empty_cache()
                self.batch_size = probe.batch_size = probe.batch_size // 2

    def bare(self) -> "Engine":
        """An engine of the same models and settings that knows no rows."""
        models = {role: model.backbone for role, model in self.models.items()}
        return Engine(
            models,
            seed=self.seed,
            batch_size=self.batch_size,
            images_per_chunk=self.images_per_chunk,
            bf16=self.bf16,
            compile_denoiser=self.compile_denoiser,
            share=self.share,
            progress=False,
        )

    @property
    def anchor(self) -> Model:
        """The model that decides which words of a caption matter, for all models alike."""
        return list(self.models.values())[-1]

    def _bf16(self, score: "Score") -> bool:
        return self.bf16 and not score.needs_float32

    def _ledger(self, name: str, score: "Score", role: str) -> Ledger:
        """Rows are the same whatever a score is called, however it is fitted and whichever part a
        model plays."""
        if (name, role) not in self._ledgers:
            asked = measuring(score)
            facts: list[Any] = [VERSION, self.seed, self._bf16(score), asked]
            facts += ["compiled"] * self.compile_denoiser
            who = role
            if self.folder:  # hashing every weight takes seconds on a large model
                who = self.models[role].name
                if score.asks_anchor:
                    facts.append(self.anchor.name)
            stem = f"{asked['class'].rpartition('.')[2]}-{who}"
            book = Ledger(self.folder, stem, json.dumps(facts))
            self._ledgers[name, role] = self._books.setdefault(f"{stem} {facts}", book)
        return self._ledgers[name, role]


class Asked(NamedTuple):
    """A chunk of pictures, and the (score, role) of which not all their rows are known."""

    pictures: Sequence[Picture]
    needed: Sequence[tuple[str, str]]


class Found(NamedTuple):
    """(B, F) features of a chunk on one model, and how many seconds they took."""

    score: str
    role: str
    features: np.ndarray
    seconds: float


class Measuring(Work):
    """Asks the models of an engine about a chunk of pictures, wherever that is done.

    Args:
        engine: Whose models and settings.
        scores: Scores by name.
        roles: Of the models that are asked.
    """

    def __init__(self, engine: Engine, scores: Mapping[str, "Score"], roles: Sequence[str]) -> None:
        self.engine, self.scores, self.roles = engine, scores, roles

    @contextmanager
    def ready(self, device: torch.device) -> Iterator[None]:
        """See `Work`."""
        with ExitStack() as stack:
            for model in self.engine.models.values():
                model.backbone.to(device)
            for role in self.roles:
                backbone = self.engine.models[role].backbone
                stack.enter_context(frozen(backbone))
                if self.engine.compile_denoiser:
                    stack.enter_context(compiled(backbone.denoiser))
            yield

    def __call__(self, part: Asked) -> list[Found]:
        """See `Work`."""
        # Not inference mode, whose tensors a white-box score could not differentiate through. Here
        # and not in `ready`, as these are a thread's, and Ray has two.
        with torch.inference_mode(False), torch.no_grad(), many_forms():
            return self.engine.asked(part, self.scores, self.roles)

    def __getstate__(self) -> dict[str, Any]:
        """The models and settings without what was measured, and without who shares the work."""
        return vars(self) | {"engine": self.engine.bare()}


def measuring(score: "Score") -> dict[str, Any]:
    """The settings that features depend on, under the class that measures them."""
    asked: dict[str, Any] = settings(score)
    kind = next(each for each in type(score).__mro__ if "measure" in vars(each))
    own = {name: value for name, value in asked.items() if name not in score.fitting}
    return own | {"class": f"{kind.__module__}.{kind.__qualname__}"}


def settings(value: Any) -> Any:
    """Class and constructor arguments of a score or of a part of one, as plain types; of classes of
    others their code too, which a user changes and runs again."""
    if isinstance(value, str | int | float | bool | None):
        return value
    if isinstance(value, Mapping):
        return {str(key): settings(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [settings(item) for item in value]
    names = [name for name in inspect.signature(type(value).__init__).parameters if name != "self"]
    own = {name: settings(getattr(value, name)) for name in names if hasattr(value, name)}
    return {"class": f"{type(value).__module__}.{type(value).__qualname__}", **own} | _code(value)


def _code(value: Any) -> dict[str, list[str]]:
    """Of a value's class and those it inherits from. This package's have `VERSION` instead."""
    known = {__name__.partition(".")[0], *sys.stdlib_module_names}
    kinds = [kind for kind in type(value).__mro__ if kind.__module__.partition(".")[0] not in known]
    found = list(dict.fromkeys(filter(None, map(code_of, kinds))))
    return {"code": found} if found else {}
