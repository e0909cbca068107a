"""The verb `verify`: is this protection worth anything? It writes a matrix, has `bench` run it, and
shows what came out. Its options stand beside those of `fit`, which say how is learnt."""

import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import yaml

from shortcut_lightning import presets
from shortcut_lightning.bench.matrix import Matrix, slug
from shortcut_lightning.bench.runner import Runner, named
from shortcut_lightning.bench.workers import visible_gpus
from shortcut_lightning.cli.bench import bench
from shortcut_lightning.cli.config_files import config_files
from shortcut_lightning.cli.errors import UserError, as_user_error, did_you_mean, notice
from shortcut_lightning.cli.parser import ShortcutParser
from shortcut_lightning.cli.verbs import PROGRAM
from shortcut_lightning.files.atomic import atomic
from shortcut_lightning.pocket import BUILT_IN
from shortcut_lightning.ranges import CountOrNone
from shortcut_lightning.stopping import Stopped
from shortcut_lightning.verify import effects, page, photographs, plan, recipe, routes
from shortcut_lightning.verify.asked import Asked, refuse_other
from shortcut_lightning.verify.damage import damage

Run = Callable[[list[str]], None]
Merge = Callable[[list[str]], dict[str, Any]]


def verify_parser() -> ShortcutParser:
    """The options that `fit` does not have."""
    parser = ShortcutParser(prog=f"{PROGRAM} verify")
    parser.add_argument(
        "--effort",
        type=Literal["quick", "default", "full"],
        default="default",
        help="quick: photographs as given and after a platform's JPEG and resizing, one training "
        "of each. default: every route, one training of each. full: every route, three.",
    )
    parser.add_argument(
        "--dry_run",
        type=bool,
        default=False,
        help="Say what would be run and about how long it takes, and run nothing.",
    )
    parser.add_argument(
        "--workers",
        type=CountOrNone,
        default=0,
        help="Processes at work; 0 for one on each GPU, or two on a machine with two cores.",
    )
    parser.add_argument(
        "--output",
        type=str,
        default="",
        help="Folder of the page, the copies and the runs, where the same command goes on. "
        "Default: <output_dir>/verify/<recipe>-<photographs>-<attack>.",
    )
    parser.add_argument(
        "--restoration",
        type=str,
        default="",
        help="A preset or file of purifiers that restores; empty for the pocket's own.",
    )
    parser.add_argument(
        "--family",
        type=str,
        default="",
        help="Another model that draws the photographs anew and learns them: pocket, pocket-flow, "
        "a folder or a hub id. Empty for the built-in one that is not trained.",
    )
    parser.add_argument(
        "--stale",
        type=Literal["rerun", "keep"],
        default="rerun",
        help="Whether finished runs that another state of the package's code made run anew.",
    )
    return parser


def verify(argv: list[str], run: Run, merge: Merge) -> None:
    """Runs what is missing and writes the page.

    Args:
        argv: the command line after the verb.
        run: runs the command line of another verb.
        merge: the settings that a command line of `fit` comes to.

    Raises:
        UserError: a user's mistake, or runs that failed.
    """
    own, others = _split(argv)
    given = verify_parser().parse_args(own)
    _check_names(given.restoration, given.family)
    merged = merge(["fit", *others])
    workers = given.workers or _workers()
    with _user_errors():
        asked = recipe.read(merged)
        sources = photographs.listed(asked)
        root = Path(given.output or _default_output(merged, asked, others))
        made = routes.matrix(asked, root, given.effort, given.restoration, given.family)
        plan.require_enough(asked, made)
        of = Asked.by(asked, [entry.path for part in sources for entry in part])
        refuse_other(root, of)
        matrix = Matrix(**presets.in_values(made.settings))
        runner = Runner(matrix, root.resolve(), run, notice, given.stale == "keep")
        done = [runner.seconds(cell) for cell, _ in runner.reports()]
        speed = plan.known_speed(asked, Path(merged["output_dir"]))
        said = plan.plan(asked, made, len(sources.instance), done, speed, workers)
    if given.dry_run:
        sys.stdout.write(f"{said}\nfolder       {root}\n")
        return
    notice(said)
    with _user_errors(root):
        _write(root, asked, made, of)
        photographs.make(asked, sources, root, run, notice)
    failure = _bench(root, workers, given.stale, run)
    answer = _answer(asked, made, runner, root, argv)
    shown = page.write(answer, root)
    sys.stdout.write("\n".join(["", *answer.sentences(), "", str(shown), ""]))
    if failure:
        raise failure


@contextmanager
def _user_errors(root: Path | None = None) -> Iterator[None]:
    """Turns what was raised on purpose into a line; in a folder, says what is kept of it."""
    try:
        yield
    except Stopped as stopped:
        if root:
            stopped.kept = f"what was made is kept in {root}; the same command goes on"
        raise
    except (ValueError, OSError) as error:
        if said := as_user_error(error, {}, str(root or "")):
            raise said from error
        raise


def _split(argv: list[str]) -> tuple[list[str], list[str]]:
    """The options of this verb, and those of `fit`. `--dry_run` may stand alone."""
    names = {action.dest for action in verify_parser()._actions}
    own: list[str] = []
    others: list[str] = []
    words = iter(argv)
    word = next(words, None)
    while word is not None:
        option, equals, _ = word.removeprefix("--").partition("=")
        following = next(words, None)
        if not word.startswith("--") or option not in names or equals:
            (own if equals and word.startswith("--") and option in names else others).append(word)
        elif option == "dry_run" and str(following).lower() not in ("true", "false"):
            own.append("--dry_run=true")
        elif following is None or following.startswith("--"):
            raise UserError(f"{word}: give a value")
        else:
            own.append(f"{word}={following}")
            following = next(words, None)
        word = following
    for word in others:
        _refuse(word, names)
    return own, others


def _refuse(word: str, names: set[str]) -> None:
    """An option that makes no sense here, or is a misspelt one of this verb."""
    option = word.removeprefix("--").partition("=")[0]
    if not word.startswith("--") or "." in option or option in _OF_FIT:
        return
    if option in ("ckpt_path", "name"):
        raise UserError(f"--{option}: verify does not take it; --output names its folder")
    if hint := did_you_mean(option, names):
        raise UserError(f"no option '{option}'{hint}")


_OF_FIT = {"config", "output_dir", "trainer", "model", "data", "seed_everything"}


def _check_names(restoration: str, family: str) -> None:
    """What is named is there, as far as that can be seen at once."""
    found = presets.find(restoration, "purifiers") or Path(restoration).is_file()
    if restoration and not found:
        known = presets.names("purifiers")
        hint = did_you_mean(restoration, known)
        raise UserError(f"--restoration: no file or preset '{restoration}'{hint}")
    is_path = family.startswith(("/", ".", "~")) or family.count("/") > 1
    if is_path and not Path(family).expanduser().exists():
        raise UserError(f"--family: no folder '{family}'")
    if family and "/" not in family and family not in BUILT_IN and not Path(family).exists():
        raise UserError(
            f"--family: '{family}' is no folder and no hub id, owner/name; or give "
            f"{' or '.join(BUILT_IN)}"
        )


def _default_output(merged: dict[str, Any], asked: recipe.Recipe, argv: list[str]) -> Path:
    files = config_files(argv)
    stem = files[0].stem if files else "run"
    name = "-".join([stem, slug(Path(asked.source).name), asked.protection])
    return Path(merged["output_dir"]) / "verify" / name


def _workers() -> int:
    return len(visible_gpus(os.environ)) or min(2, os.cpu_count() or 1)


def _write(root: Path, asked: recipe.Recipe, made: routes.Matrix, of: Asked) -> None:
    root.mkdir(parents=True, exist_ok=True)
    of.write(root)
    files: dict[str, Any] = {"recipe.yaml": asked.config, "matrix.yaml": made.settings}
    if asked.purifiers:
        files[routes.PURIFIERS] = asked.purifiers
    for name, content in files.items():
        with atomic(root / name) as half:
            half.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def _bench(root: Path, workers: int, stale: str, run: Run) -> UserError | None:
    """Runs the matrix; what it says of runs that failed."""
    words = ["--config", str(root / "matrix.yaml"), f"--workers={workers}", "--tables=none"]
    try:
        bench([*words, f"--stale={stale}"], run)
    except UserError as error:
        return error
    return None


def again(argv: list[str]) -> str:
    """What to type to go on, as a shell takes it."""
    return f"{PROGRAM} verify {shlex.join(argv)}"


def _answer(
    asked: recipe.Recipe, made: routes.Matrix, runner: Runner, root: Path, argv: list[str]
) -> page.Answer:
    reports, cells = runner.reports(), runner.matrix.cells()
    measured = effects.measured(reports)
    facts = page.facts(reports, measured.measures())
    return page.Answer(
        recipe=asked,
        matrix=made,
        measured=measured,
        findings=effects.findings(measured, made.routes),
        judges=facts.judges,
        models=facts.models,
        runs=facts.runs,
        damage=damage(root),
        finished=(len(reports), len(cells)),
        seconds=sum(runner.seconds(cell) for cell, _ in reports),
        command=again(argv),
        unfinished=[named(cell) for cell in cells if not runner.finished(cell)],
    )
