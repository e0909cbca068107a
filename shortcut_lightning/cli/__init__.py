"""The command line: `shortcut-lightning VERB --config FILE --key value`.

`main` answers what it can (help, version, a wrong verb, old option names, broken config files)
before anything heavy is imported; everything else happens in `app.py`.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from shortcut_lightning import stopping
from shortcut_lightning.cli.errors import UserError, as_user_error, is_first_process
from shortcut_lightning.cli.first_look import first_look
from shortcut_lightning.finite import NotFinite
from shortcut_lightning.presets import in_arguments

_NOTHING = "nothing was done yet; the same command starts again"
DEBUG = "SHORTCUT_LIGHTNING_DEBUG"  # set it to see the traceback behind a one-line error


def main(args: list[str] | None = None) -> None:
    """Runs one verb.

    Args:
        args: stands for `sys.argv[1:]`.

    Raises:
        SystemExit: with code 2 after a user's mistake and 1 after numbers that are not finite or
            where a disk or the memory is full, which are named on stderr in a line or two; with 130
            after SIGINT and 143 after SIGTERM.
    """
    # Read when torch starts its threads: those that wait then sleep, where other work goes on too.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    argv = in_arguments(sys.argv[1:] if args is None else args)
    with stopping.listening(), _working_folder():
        try:
            try:
                _answer(argv)
            except Exception as error:
                if stopped := stopping.behind(error):
                    raise stopped from error
                raise
        except UserError as error:
            _end(error.code, error)
        except NotFinite as error:
            _end(1, error)
        except OSError as error:
            said = as_user_error(error, {})
            if said is None:
                raise
            _end(said.code, said)
        except stopping.Stopped as stopped:
            if not stopping.follows():
                sys.stderr.write(f"\nstopped by {_name(stopped)}: {stopped.kept or _NOTHING}\n")
            # The other ranks end as if all was well: a code would have the first one killed.
            raise SystemExit(stopped.code if is_first_process() else 0) from None


@contextmanager
def _working_folder() -> Iterator[None]:
    """A user's files beside the working folder can be imported; what is installed comes first."""
    here = os.getcwd()
    added = here not in sys.path
    if added:
        sys.path.append(here)
    try:
        yield
    finally:
        if added and here in sys.path:
            sys.path.remove(here)


def _answer(argv: list[str]) -> None:
    if answer := first_look(argv):
        sys.stdout.write(answer)
        return
    from shortcut_lightning.cli.app import run  # here, because it imports torch and lightning

    run(argv)


def _end(code: int, error: Exception) -> NoReturn:
    if os.environ.get(DEBUG):
        raise error
    who = "" if is_first_process() else "in another process: "
    sys.stderr.write(f"error: {who}{error}\n")
    raise SystemExit(code) from None


def _name(stopped: stopping.Stopped) -> str:
    return signal.Signals(stopped.number).name
