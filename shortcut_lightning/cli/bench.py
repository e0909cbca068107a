"""The verb `bench`: a matrix of runs. It has a configuration of its own kind, so it does not go
through LightningCLI; each of its cells does."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from shortcut_lightning.bench.cell_pictures import keep_pictures
from shortcut_lightning.bench.matrix import Matrix
from shortcut_lightning.bench.on_ray import run_on_ray
from shortcut_lightning.bench.results import Table, collect
from shortcut_lightning.bench.rows import Rows, gathered
from shortcut_lightning.bench.runner import Runner
from shortcut_lightning.bench.tables import summary, write
from shortcut_lightning.bench.twins import taken
from shortcut_lightning.bench.workers import in_sweep, run_workers, sweep_run
from shortcut_lightning.cli.config_files import config_files
from shortcut_lightning.cli.engines import add_pool_arguments
from shortcut_lightning.cli.errors import UserError, notice
from shortcut_lightning.cli.parser import ShortcutParser
from shortcut_lightning.cli.verbs import PROGRAM
from shortcut_lightning.stopping import Stopped

_OPTIONS = ("config", "workers", "engine", "gpus_per_worker", "tables", "rows", "stale")


def bench_parser() -> ShortcutParser:
    """What may follow the verb."""
    parser = ShortcutParser(prog=f"{PROGRAM} bench")
    parser.add_argument("--config", "-c", action="config", help="The matrix's file.")
    parser.add_class_arguments(Matrix)
    add_pool_arguments(
        parser, "Processes at work. More may be started by hand in the same folder, at any time."
    )
    parser.add_argument(
        "--tables",
        type=Literal["write", "only", "none"],
        default="write",
        help="Write the tables at the end, write them and run nothing, or do not write them.",
    )
    parser.add_argument(
        "--rows",
        type=str,
        default="",
        help="A folder of rows, such as configs/bench/results/table: cells that it has are not run "
        "again, and the finished ones are added, with a small picture of each arm. Rows of these "
        "cells alone always lie in <output_dir>/rows.",
    )
    parser.add_argument(
        "--stale",
        type=Literal["rerun", "keep"],
        default="rerun",
        help="Whether finished cells that another state of the package's code made run anew.",
    )
    return parser


def bench(argv: list[str], run: Callable[[list[str]], None]) -> None:
    """Runs what is missing of a matrix and writes its tables.

    Args:
        argv: the command line after the verb.
        run: runs the command line of a cell.

    Raises:
        UserError: a user's mistake, or cells that failed.
    """
    parser = bench_parser()
    config = parser.parse_args(argv)
    given = config_files(argv)
    folder = (given[-1].parent if given else Path()).resolve()
    settings = parser.instantiate(config)
    failed = 0
    try:
        matrix = _matrix({k: v for k, v in vars(settings).items() if k not in _OPTIONS}, argv)
        kept = _kept(matrix, folder, config.rows)
        runner = Runner(matrix, folder, run, notice, config.stale == "keep", kept)
        same = ["bench", *argv, "--workers=1", "--tables=none"]
        if config.tables == "only":
            pass
        elif in_sweep():
            with sweep_run() as sweep:
                failed = run_workers(same, config.workers)
                sweep.summary.update(summary(_table(runner)))
        elif config.engine == "ray":
            run_on_ray(runner, config.workers, config.gpus_per_worker)
        elif config.gpus_per_worker:
            raise ValueError("--gpus_per_worker needs --engine ray; others share the GPUs evenly.")
        elif config.workers > 1:
            failed = run_workers(same, config.workers)
        else:
            runner.all()
    except Stopped as stopped:
        stopped.kept = f"finished cells are kept in {settings.output_dir}; the same command goes on"
        raise
    except ValueError as error:
        raise UserError(" ".join(str(error).split())) from error
    if config.tables != "none":
        paths = write(matrix, _table(runner), Path(matrix.output_dir))
        _keep_rows(gathered(runner), Path(matrix.output_dir), config.rows)
        if config.rows:
            keep_pictures(runner, Path(config.rows))
        sys.stdout.write("\n".join([paths[1].read_text("utf-8"), *map(str, paths), ""]))
    if failed:
        raise UserError(f"{failed} of {config.workers} workers failed; what each said is above")
    if runner.failures:
        first = next(iter(runner.failures.items()))
        raise UserError(
            f"{len(runner.failures)} cells failed, first {first[0]}: {first[1].splitlines()[0]}\n"
            "  the same command tries them again"
        )


def _table(runner: Runner) -> Table:
    return collect(runner.matrix, runner.reports(), runner.without_runs())


def _kept(matrix: Matrix, folder: Path, rows: str) -> Rows:
    """What need not be run again: rows of these cells, and of their twins in other matrices."""
    kept = Rows()
    if not rows:
        return kept
    from shortcut_lightning.cli.app import merged

    for name in matrix.twins:
        file = folder / name
        if not file.is_file():
            raise ValueError(f"twins: {name} is no file beside the matrix, in {folder}.")
        there = Rows.read(Path(rows).parent / file.stem)
        kept.add(taken(matrix, folder, Matrix.read(file), file.parent, there, merged))
    kept.add(_rows_of(rows))
    return kept


def _rows_of(folder: str) -> Rows:
    try:
        return Rows.read(Path(folder))
    except ValueError as error:
        raise UserError(f"--rows: {error}") from error


def _keep_rows(rows: Rows, output_dir: Path, added_to: str) -> None:
    """Writes what the cells measured, and adds it to the rows that are kept."""
    rows.write(output_dir / "rows")
    if added_to:
        kept = _rows_of(added_to)
        kept.add(rows)
        kept.write(Path(added_to))


def _matrix(settings: dict[str, Any], argv: list[str]) -> Matrix:
    """The matrix; with --arms on the command line without the claims about other arms."""
    if not any(word.partition("=")[0] == "--arms" for word in argv):
        return Matrix(**settings)
    claims = settings["claims"]
    matrix = Matrix(**settings | {"claims": []})
    arms = {"/".join(levels) for levels in matrix.arms()}
    matrix.claims = [claim for claim in claims if {claim.arm, claim.against} <= arms]
    matrix.asked = len(claims)
    if left := len(claims) - len(matrix.claims):
        notice(f"claims: {left} of {len(claims)} are about other arms than --arms and wait")
    return matrix
