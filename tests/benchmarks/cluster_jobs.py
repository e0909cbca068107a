"""What the campaign of kills on a cluster runs: verbs on few small pictures, and what they left."""

import csv
import io
import json
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import yaml

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
CONFIGS = REPOSITORY / "configs"
SHARDS, EACH = 8, 4
CELLS = 3
sys.path.insert(0, str(HERE.parent / "cluster"))

_ROWS = """
import sys
sys.path.insert(0, {tests!r})
from shards import Measure
import torch
from shortcut_lightning.cluster import open_pool
from shortcut_lightning.cluster.sinks import Output
from shortcut_lightning.cluster.sources import parts_of
from shortcut_lightning.cluster.stream import stream
with open_pool({engine!r}, {workers}) as pool:
    stream(Measure(), parts_of("pictures", "source"), Output({output!r}, "parquet"), {{}}, pool,
           torch.device("cpu"), max_failures=0)
"""
_VERBS = {
    "detect": ["--data.detector", f"{CONFIGS}/detectors/qr.yaml"],
    "purify": ["--data.purifiers", f"{CONFIGS}/purifiers/code_sr_pocket.yaml"],
    "protect": ["--data.attack", f"{CONFIGS}/attacks/pocket/advdm.yaml", "--data.attack.steps=3"],
}
_AUDIT = {
    "audit": {
        "target": {"pretrained_model_name_or_path": "pocket"},
        "members": "members",
        "nonmembers": "nonmembers",
        "scores": {"CLiD_th": {"class_path": "CLiDThreshold", "init_args": {"n_t": 2}}},
        "statistics": {"resamples": 100},
    }
}


class Job(NamedTuple):
    """A command.

    Attributes:
        words: The command line for an output, an engine and a number of workers.
        steps: A pattern for files of which one appears for each step that is done.
        most: How many steps there are.
        contents: What it wrote, to be compared: no key twice.
    """

    words: Callable[[str, str, int], list[str]]
    steps: str
    most: int
    contents: Callable[[Path], dict[str, Any]]


def jobs() -> dict[str, Job]:
    """All by name; they run in the folder that `prepare` has filled."""
    streams = {name: Job(_stage(name), "parts/*.json", SHARDS, tables) for name in _VERBS}
    return {
        "rows": Job(_rows, "parts/*.json", SHARDS, tables),
        **streams,
        "audit": Job(_audit, "measured/*/parts/*.json", SHARDS, audited),
        "bench": Job(_bench, "**/cell.json", CELLS, cells),
    }


def prepare(folder: Path) -> None:
    """What the commands read."""
    from shards import write_shards

    write_shards(folder / "pictures", SHARDS, EACH)
    for part, first in (("members", 0), ("nonmembers", SHARDS * EACH)):
        write_shards(folder / part, SHARDS // 2, EACH, first)
    (folder / "audit.yaml").write_text(yaml.safe_dump(_AUDIT))
    cell = yaml.safe_load((CONFIGS / "quickstart.yaml").read_text())
    cell["trainer"] |= {"max_steps": 2, "enable_progress_bar": False}
    cell["model"]["init_args"]["sampling"]["num_inference_steps"] = 2
    cell["data"]["init_args"]["with_prior_preservation"] = False
    cell["data"]["init_args"]["evaluation"]["images_per_prompt"] = 1
    (folder / "cell.yaml").write_text(yaml.safe_dump(cell))
    rates = {f"rate{n}": {"model.learning_rate": 1e-4 * n} for n in range(1, CELLS + 1)}
    matrix = {"base": ["cell.yaml"], "subjects": ["pocket:0"], "factors": {"rate": rates}}
    (folder / "matrix.yaml").write_text(yaml.safe_dump(matrix, sort_keys=False))


def tables(output: Path) -> dict[str, Any]:
    """Rows of Parquet files and members of shards, by file."""
    import pyarrow.parquet as parquet

    found: dict[str, Any] = {}
    for path in sorted(output.glob("*.parquet")):
        found[path.name] = parquet.read_table(path).to_pylist()
    for path in sorted(output.glob("*.tar")):
        with tarfile.open(path) as archive:
            found[path.name] = [
                (member.name, opened.read())
                for member in archive
                if (opened := archive.extractfile(member))
            ]
    return found


def audited(output: Path) -> dict[str, Any]:
    """The numbers of each picture, and what the report says of them."""
    report = json.loads((output / "report.json").read_text())
    found = {"scores": report["scores"], "verdict": report["verdict"]}
    return found | {
        f"{folder.name}/{name}": rows
        for folder in sorted((output / "measured").iterdir())
        for name, rows in tables(folder).items()
    }


def cells(output: Path) -> dict[str, Any]:
    """Of each cell the metrics and the pictures of its run, and the values that are kept as rows,
    in which no cell and metric is twice."""
    found: dict[str, Any] = {}
    for state in sorted(output.rglob("cell.json")):
        run = state.parent / json.loads(state.read_text())["run"]
        found[state.parent.name] = [
            json.loads((run / "report.json").read_text())["metrics"],
            {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*.png")},
        ]
    rows = list(csv.reader(io.StringIO((output / "rows" / "values.csv").read_text())))
    return found | {"values": sorted(row for row in rows if not row[3].startswith("seconds/"))}


def _engine(engine: str, workers: int) -> list[str]:
    return ["--engine", engine, "--workers", str(workers)]


def _rows(output: str, engine: str, workers: int) -> list[str]:
    tests = str(HERE.parent / "cluster")
    script = _ROWS.format(tests=tests, engine=engine, workers=workers, output=output)
    return [sys.executable, "-c", script]


def _stage(verb: str) -> Callable[[str, str, int], list[str]]:
    def words(output: str, engine: str, workers: int) -> list[str]:
        return [
            *(sys.executable, str(REPOSITORY / "train.py"), verb, "--model=DreamBooth"),
            *("--model.pretrained_model_name_or_path=pocket", "--data=PersonalizationDataModule"),
            *("--data.instance_data_dir=pictures", "--data.instance_prompt=a photo of a man"),
            *("--trainer.accelerator=cpu", *_VERBS[verb], "--output", output),
            *_engine(engine, workers),
        ]

    return words


def _audit(output: str, engine: str, workers: int) -> list[str]:
    command = [sys.executable, str(REPOSITORY / "train.py"), "audit", "--config", "audit.yaml"]
    return [*command, "--output", output, *_engine(engine, workers)]


def _bench(output: str, engine: str, workers: int) -> list[str]:
    command = [sys.executable, str(REPOSITORY / "train.py"), "bench", "--config", "matrix.yaml"]
    return [*command, f"--output_dir={output}", *_engine(engine, workers)]
