"""An audit of sets that are shards, tables or patterns of files: measured a part at a time, judged
from the numbers alone, so that memory grows by some bytes a picture and not by pictures."""

import json
import time
from collections.abc import Hashable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from shortcut_lightning.audit.blind import Blind
from shortcut_lightning.audit.evaluator import Features
from shortcut_lightning.audit.judge import Judge
from shortcut_lightning.audit.result import AuditResult
from shortcut_lightning.audit.sets import Sets
from shortcut_lightning.audit.streamed_looks import (
    Some,
    Table,
    blind_of,
    looks,
    near_copies,
    read,
    some_of,
)
from shortcut_lightning.audit.verdict import verdict
from shortcut_lightning.backbones import Backbone
from shortcut_lightning.cluster import Pool
from shortcut_lightning.cluster.sinks import Output
from shortcut_lightning.cluster.sources import Part, Row, fingerprint, parts_of
from shortcut_lightning.cluster.stream import Job, stream
from shortcut_lightning.files.images import load_image
from shortcut_lightning.membership.base import Score
from shortcut_lightning.membership.engine import (
    VERSION,
    Asked,
    Engine,
    Measuring,
    measuring,
    settings,
)
from shortcut_lightning.membership.ledger import as_kept
from shortcut_lightning.membership.pictures import Picture, content_key, prepared
from shortcut_lightning.metrics.encoders import ImageEncoder

if TYPE_CHECKING:
    from shortcut_lightning.audit.audit import Audit

LEFT_OUT = [
    "Caption controls, the test of the set as a whole, the curve over the noise level, and "
    "deciding image by image with few queries: folders of some thousand pictures have them, shards "
    "and tables do not (audit.members, audit.nonmembers).",
]


class MeasureRows(Job):
    """What scores say of picture and caption, a list of numbers for each score and model, and what
    controls look at.

    Args:
        engine: Whose models and settings; it keeps no rows.
        scores: Scores by name.
        roles: Of the models that are asked.
        caption: One sentence for all pictures; empty for their own.
        blind: Whether baselines without a model are wanted.
        encoder: Whose embeddings they look at.
    """

    def __init__(
        self,
        engine: Engine,
        scores: Mapping[str, Score],
        roles: Sequence[str],
        caption: str,
        blind: bool,
        encoder: ImageEncoder | None,
    ) -> None:
        self.work = Measuring(engine, dict(scores), tuple(roles))
        self.caption, self.blind, self.encoder = caption, blind, encoder
        self.device = torch.device("cpu")
        self.batch_size = engine.images_per_chunk
        self.resolution = engine.models[roles[0]].backbone.resolution
        self.needs_captions = [name for name, each in scores.items() if each.needs_captions]

    def ready(self, device: torch.device) -> AbstractContextManager[object]:
        """See `Job`."""
        self.device = device
        return self.work.ready(device)

    def prepare(self, row: Row) -> Picture:
        """See `Job`."""
        image = prepared(load_image(Path(row.name), row.data), self.resolution)
        caption = self.caption or row.caption
        if self.needs_captions and not caption:
            raise ValueError(
                f"has no caption, which {self.needs_captions[0]} needs (audit.caption gives one "
                "sentence to all)"
            )
        return Picture(row.name, caption, content_key(image), image, self.resolution)

    def alike(self, prepared: Picture) -> Hashable:
        """See `Job`: all have the model's resolution."""
        return self.resolution

    def do(
        self, part: Part, rows: Sequence[Row], prepared: Sequence[Picture]
    ) -> list[dict[str, Any]]:
        """See `Job`."""
        asked = [(name, role) for name in self.work.scores for role in self.work.roles]
        seen = looks(rows, prepared, self.blind, self.encoder, self.device)
        made: list[dict[str, Any]] = [
            {"part": part.label, "row": row.number, "name": row.name, "key": picture.key, **own}
            for row, picture, own in zip(rows, prepared, seen, strict=True)
        ]
        for name, role, features, _ in self.work(Asked(prepared, asked)):
            for each, numbers in zip(made, as_kept(features).tolist(), strict=True):
                each[f"{name} on {role}"] = numbers
        return made


@dataclass(frozen=True)
class _StreamedJudge(Judge):
    """A judge whose sets are rows of tables."""

    tables: Mapping[str, Table]

    def _features(self, name: str, role: str, members: Any, holdouts: Any) -> Features:
        both = (
            self.tables[some.of].columns[f"{name} on {role}"][some.rows]
            for some in (members, holdouts)
        )
        return Features(*both)


def judge_streams(
    audit: "Audit", models: dict[str, Backbone], folder: Path, pool: Pool, max_failures: int
) -> AuditResult:
    """Measures the sets of an audit into `measured/` of its folder, and judges them.

    Raises ValueError for a set that cannot be read, and for pictures in two opposite sets.
    """
    if audit.captioner:
        raise ValueError("audit.captioner describes pictures of folders; give audit.caption.")
    if audit.features:
        raise ValueError(
            f"audit.features is {audit.features}, which audits of folders share; what is measured "
            "of shards and tables stays in measured/ of --output. Leave it out."
        )
    started = time.perf_counter()
    engine = audit.engine(models, progress=False)
    tables, warnings = {}, []
    for key in ("members", "nonmembers", "shadow_members", "shadow_nonmembers"):
        if source := str(getattr(audit, key)):
            asked = ["shadow" if key.startswith("shadow") else "target"]
            roles = [role for role in engine.models if role in (*asked, "base")]
            blind = audit.controls.blind and not key.startswith("shadow")
            job = MeasureRows(
                engine, audit.scores, roles, audit.caption, blind, audit.controls.blind_encoder
            )
            parts = parts_of(source, f"audit.{key}")
            output = Output(str(folder / "measured" / key), "parquet")
            made = _recipe(engine, audit, roles, parts)
            device = engine.models[roles[0]].device
            tally = stream(job, parts, output, made, pool, device, max_failures=max_failures)
            if not tally.rows:
                raise ValueError(f"audit.{key} is '{source}', where there is no picture.")
            if tally.failures:
                warnings.append(f"Of audit.{key} {tally.told()}.")
            tables[key] = read(folder / "measured" / key)
    sets, told = _sets(tables, audit.seed)
    blind_found = _blind(audit, tables, sets) if audit.controls.blind else []
    judge = _StreamedJudge(
        engine, sets, audit.seed, audit.statistics.fprs, audit.statistics.resamples, tables
    )
    judged = {name: judge._judged(name, score) for name, score in audit.scores.items()}
    head = judged[audit.headline]
    return AuditResult(
        verdict=verdict(audit.headline, head.plain, head.base, blind_found, judge.tuned_on),
        headline=audit.headline,
        tuned_on=judge.tuned_on,
        judged=judged,
        blind=blind_found,
        captions=[],
        ladder=None,
        dataset={},
        members=[],
        holdouts=[],
        warnings=[
            *warnings,
            *told,
            *judge.reserves(audit.headline, head, blind_found, audit.controls.blind),
        ],
        seconds={"in all": time.perf_counter() - started},
        rows=_names(tables, sets),
        left_out=LEFT_OUT,
    )


def _blind(audit: "Audit", tables: Mapping[str, Table], sets: Sets) -> list[Blind]:
    judged = [(tables[some.of], some.rows) for some in sets[:2]]  # type: ignore[attr-defined]
    return blind_of(judged, audit.seed, audit.controls.blind_encoder.name)


def _names(tables: Mapping[str, Table], sets: Sets) -> dict[str, Features]:
    """Names and content keys of the judged pictures."""
    judged: Any = sets[:2]
    names = (np.array(some_of(tables[each.of], each.rows, "name")) for each in judged)
    keys = ([f"{key:016x}" for key in tables[each.of].keys[each.rows]] for each in judged)
    return {"name": Features(*names), "key": Features(*map(np.array, keys))}


def _recipe(
    engine: Engine, audit: "Audit", roles: Sequence[str], parts: Sequence[Part]
) -> dict[str, Any]:
    made = {
        "version": VERSION,
        "scores": {name: measuring(score) for name, score in audit.scores.items()},
        "models": {role: engine.models[role].name for role in roles},
        "settings": [audit.seed, audit.compute.bf16, audit.compute.images_per_chunk, audit.caption]
        + ["compiled"] * audit.compute.compile_denoiser,
        "looks": [audit.controls.blind, settings(audit.controls.blind_encoder)],
        "parts": fingerprint(parts),
    }
    return dict(json.loads(json.dumps(made)))


def _sets(tables: Mapping[str, Table], seed: int) -> tuple[Sets, list[str]]:
    """Rows to judge and to tune on, without exact copies; as `sets.read_sets` divides folders."""
    warnings, kept = [], {}
    for key, table in tables.items():
        rows = np.sort(np.unique(table.keys, return_index=True)[1])
        if twice := len(table.keys) - len(rows):
            warnings.append(f"{twice} exact copies within audit.{key} were left out.")
        kept[key] = rows
    for inside, outside in (
        ("members", "nonmembers"),
        ("shadow_members", "shadow_nonmembers"),
    ):
        if inside not in tables:
            continue
        own, other = tables[inside], tables[outside]
        what = f"audit.{inside} and audit.{outside}"
        if both := len(np.intersect1d(own.keys, other.keys)):
            raise ValueError(f"{both} images are in both {what}; remove them from one.")
        warnings += near_copies(own, other, (kept[inside], kept[outside]), what)
    if "shadow_members" in kept:
        some: Any = [Some(key, rows) for key, rows in kept.items()]
        return Sets(*some), warnings
    rng = np.random.default_rng(seed)
    halves: Any = []
    for key in ("members", "nonmembers"):
        order = rng.permutation(len(kept[key]))
        middle = len(order) // 2
        parts = (order[middle:], order[:middle])
        halves.append([Some(key, kept[key][part]) for part in parts])
    return Sets(halves[0][0], halves[1][0], halves[0][1], halves[1][1]), warnings
