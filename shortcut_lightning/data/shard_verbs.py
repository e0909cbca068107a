"""`detect`, `protect` and `purify` where `data.instance_data_dir` names shards, tables or files by
a pattern (`cluster/sources.py`)."""

import json
from collections.abc import Sequence
from typing import Any

import torch

from shortcut_lightning.attacks.base import NoAttack
from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.cluster import Pool
from shortcut_lightning.cluster.sinks import Output
from shortcut_lightning.cluster.sources import Part, fingerprint, parts_of
from shortcut_lightning.cluster.stream import Tally, stream
from shortcut_lightning.concepts.base import NoDetector
from shortcut_lightning.data.buckets import Bucket
from shortcut_lightning.data.copies import Copies
from shortcut_lightning.data.copy_records import recipe
from shortcut_lightning.data.datamodule import PersonalizationDataModule
from shortcut_lightning.data.shards import ChangeRows, DetectRows
from shortcut_lightning.draws import run_seed
from shortcut_lightning.files.cache import describe
from shortcut_lightning.report.summary import installed_versions

_KEY = "data.instance_data_dir"


def detect_shards(
    data: PersonalizationDataModule,
    resolution: int,
    output: str,
    pool: Pool,
    device: torch.device,
    max_failures: int,
    sizes: Sequence[Bucket] = (),
) -> Tally:
    """Writes a Parquet file of boxes for each part of `data.instance_data_dir`; `sizes` are the
    buckets that they are meant for, if any."""
    if isinstance(data.detector, NoDetector):
        raise ValueError("data.detector is not set, so nothing would be found.")
    if not output:
        raise ValueError("--output is empty; give a folder for the tables of boxes.")
    parts = parts_of(data.instance_data_dir, _KEY)
    crop = data.training.center_crop
    job = DetectRows(data.detector, resolution, crop, data.detection_side, sizes)
    made = {
        "verb": "detect",
        "detector": describe(data.detector),
        "resolution": resolution,
        "center_crop": crop,
        "side": data.detection_side,
        "versions": installed_versions(),
    }
    if sizes:
        made["buckets"] = sizes
    return stream(
        job,
        parts,
        Output(output, "parquet"),
        _of(made, parts),
        pool,
        device,
        max_failures=max_failures,
    )


def copy_shards(
    verb: str,
    data: PersonalizationDataModule,
    backbone: Backbone,
    device: torch.device,
    copies: Copies,
    model_name: str,
    pool: Pool,
    max_failures: int,
) -> Tally:
    """Writes protected or purified copies: a shard for each part, or files where files came in."""
    if verb == "protect" and isinstance(data.attack, NoAttack):
        raise ValueError("data.attack is not set, so there is nothing to protect with.")
    if verb == "protect" and data.attack_share < 1:
        raise ValueError(
            f"data.attack_share is {data.attack_share:g}, and `protect` protects each photograph. "
            "Leave it out."
        )
    if verb == "purify" and not data.purifiers:
        raise ValueError("data.purifiers is empty, so there is nothing to purify with.")
    if copies.metadata == "keep":
        raise ValueError("--metadata keep works on a folder of photographs alone; give strip.")
    changes = [data.attack] if verb == "protect" else list(data.purifiers)
    parts = parts_of(data.instance_data_dir, _KEY)
    side = data.resolution or backbone.resolution
    job = ChangeRows(
        changes,
        backbone,
        side,
        data.prompts,
        data.use_captions,
        copies,
        data.sample_batch_size,
        run_seed(),
    )
    kind = "files" if parts[0].kind == "files" else "shards"
    made = recipe(verb, changes, backbone, model_name, side, copies)
    made["captions"] = [data.use_captions, data.prompts.instance_prompt, data.sample_batch_size]
    return stream(
        job,
        parts,
        Output(copies.output, kind),  # type: ignore[arg-type]
        _of(made, parts),
        pool,
        device,
        max_failures=max_failures,
    )


def told(tally: Tally) -> str:
    """What came of it, in lines for a terminal."""
    lines = [f"{tally.rows} pictures"]
    lines += [f"  {label}: {count:.0f}" for label, count in sorted(tally.counts.items())]
    if failures := tally.told():
        lines.append(failures)
    return "\n".join(lines)


def _of(made: dict[str, Any], parts: Sequence[Part]) -> dict[str, Any]:
    """The recipe with the parts that it is for, as it is read back."""
    return dict(json.loads(json.dumps(made | {"parts": fingerprint(parts)})))
