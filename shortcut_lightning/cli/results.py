"""The verb `results`: pages rendered from the rows that are kept beside the recipes."""

import sys
from pathlib import Path

from shortcut_lightning.cli.errors import UserError
from shortcut_lightning.cli.parser import ShortcutParser
from shortcut_lightning.cli.verbs import PROGRAM
from shortcut_lightning.results import pages


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
    return parser


def results(argv: list[str]) -> None:
    """Renders every page below a folder.

    Args:
        argv: the command line after the verb.

    Raises:
        UserError: no page is there, rows that cannot be read, or a stale page with `--check`.
    """
    given = results_parser().parse_args(argv)
    rooms = pages.rooms(Path(given.folder))
    if not rooms:
        raise UserError(f"--folder is '{given.folder}'; no {pages.TEMPLATE} is below it")
    try:
        files = {path: text for room in rooms for path, text in pages.rendered(room).items()}
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
