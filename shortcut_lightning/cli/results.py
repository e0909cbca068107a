"""The verb `results`: pages rendered from the rows that are kept beside the recipes."""

import sys
from pathlib import Path

from shortcut_lightning.cli.errors import UserError
from shortcut_lightning.cli.parser import ShortcutParser
from shortcut_lightning.cli.verbs import PROGRAM
from shortcut_lightning.files.atomic import atomic
from shortcut_lightning.results import leaderboard, pages


def results_parser() -> ShortcutParser:
    """What may follow the verb."""
    parser = ShortcutParser(prog=f"{PROGRAM} results")
    parser.add_argument(
        "--folder", type=str, default="configs", help="Where recipes, rows and pages are."
    )
    parser.add_argument(
        "--check",
        type=bool,
        default=False,
        help="Write nothing, and fail where a page says something other than its rows.",
    )
    parser.add_argument(
        "--leaderboard",
        type=str,
        default="",
        help="Write a page that ranks attacks and defences by their worst case to this file, "
        "and nothing else.",
    )
    parser.add_argument(
        "--metric",
        type=str,
        default="eval/avg_pocket",
        help="What the leaderboard ranks by; higher where more was learnt.",
    )
    parser.add_argument(
        "--foreign",
        type=list[str],
        default=[],
        help="CSV files of other groups for it, with the columns source, family, attack, radius, "
        "adaptive, defence, subject, seed, metric and value.",
    )
    return parser


def results(argv: list[str]) -> None:
    """Renders every page below a folder, or the leaderboard.

    Args:
        argv: the command line after the verb.

    Raises:
        UserError: no page is there, rows that cannot be read, or a stale page with `--check`.
    """
    given = results_parser().parse_args(argv)
    rooms = pages.rooms(Path(given.folder))
    if given.foreign and not given.leaderboard:
        raise UserError("--foreign adds to the page of --leaderboard, which names no file")
    if not rooms and not (Path(given.folder) / "insets").is_dir():
        raise UserError(f"--folder is '{given.folder}'; no {pages.TEMPLATE} is below it")
    if given.leaderboard:
        _rank(Path(given.leaderboard), Path(given.folder), given.metric, given.foreign)
        return
    try:
        files = {path: text for room in rooms for path, text in pages.rendered(room).items()}
        files |= pages.insets(Path(given.folder))
    except ValueError as error:
        raise UserError(str(error)) from error
    if given.check:
        if old := pages.stale(files):
            raise UserError(
                f"{', '.join(map(str, old))} differs from its rows; '{PROGRAM} results' renders it"
            )
        return
    changed = pages.write(files)
    sys.stdout.write("".join(f"{path}\n" for path in changed) or "every page is up to date\n")


def _rank(path: Path, folder: Path, metric: str, foreign: list[str]) -> None:
    """Writes the leaderboard.

    Raises:
        UserError: rows that are not valid, or none of that metric.
    """
    try:
        entries = leaderboard.own(folder, path, metric)
        entries += [each for name in foreign for each in leaderboard.foreign(Path(name), metric)]
    except ValueError as error:
        raise UserError(str(error).rstrip(".")) from error
    if not any(entry.attack for entry in entries):
        raise UserError(f"--metric is '{metric}'; no rows below '{folder}' have it for an attack")
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as half:
        half.write_text(leaderboard.page(entries, metric), encoding="utf-8")
    sys.stdout.write(f"{path}\n")
