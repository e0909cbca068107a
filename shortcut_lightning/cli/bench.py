"""The verb `bench`: a matrix of runs. It has a configuration of its own kind, so it does not go
through LightningCLI; each of its cells does."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

from shortcut_lightning.bench.matrix import Matrix
from shortcut_lightning.bench.results import collect
from shortcut_lightning.bench.runner import Runner
from shortcut_lightning.bench.tables import write
from shortcut_lightning.cli.errors import UserError, notice
from shortcut_lightning.cli.first_look import config_files
from shortcut_lightning.cli.parser import ShortcutParser
from shortcut_lightning.cli.verbs import PROGRAM


def bench(argv: list[str], run: Callable[[list[str]], None]) -> None:
    """Runs what is missing of a matrix and writes its tables.

    Args:
        argv: the command line after the verb.
        run: runs the command line of a cell.

    Raises:
        UserError: a user's mistake, or cells that failed.
    """
    parser = ShortcutParser(prog=f"{PROGRAM} bench")
    parser.add_argument("--config", "-c", action="config", help="The matrix's file.")
    parser.add_class_arguments(Matrix)
    parser.add_argument(
        "--shard", type=str, default="1/1", help="Run every n-th group of cells only: i/n, from 1."
    )
    parser.add_argument(
        "--only_tables", type=bool, default=False, help="Run nothing, write the tables anew."
    )
    config = parser.parse_args(argv)
    given = config_files(argv)
    shard = _shard(config.shard)
    folder = (given[-1].parent if given else Path()).resolve()
    settings = parser.instantiate(config)
    names = [name for name in vars(settings) if name not in ("config", "shard", "only_tables")]
    try:
        matrix = Matrix(**{name: settings[name] for name in names})
        runner = Runner(matrix, folder, run, notice)
        if not config.only_tables:
            runner.all(shard)
    except ValueError as error:
        raise UserError(" ".join(str(error).split())) from error
    table = collect(matrix, runner.reports())
    paths = write(matrix, table, Path(matrix.output_dir))
    sys.stdout.write("\n".join([paths[1].read_text("utf-8"), *map(str, paths), ""]))
    if runner.failures:
        first = next(iter(runner.failures.items()))
        raise UserError(
            f"{len(runner.failures)} cells failed, first {first[0]}: {first[1].splitlines()[0]}\n"
            "  the same command tries them again"
        )


def _shard(given: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", given)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise UserError(f"--shard is '{given}'; write i/n with i from 1 to n, such as 2/4")
    return int(match[1]), int(match[2])
