"""The command line: `shortcut-lightning VERB --config FILE --key value`.

`main` answers what it can (help, version, a wrong verb, old option names, broken config files)
before anything heavy is imported; everything else happens in `app.py`.
"""

import os
import sys

from shortcut_lightning.cli.errors import UserError, is_first_process
from shortcut_lightning.cli.first_look import first_look
from shortcut_lightning.presets import in_arguments

DEBUG = "SHORTCUT_LIGHTNING_DEBUG"  # set it to see the traceback behind a one-line error


def main(args: list[str] | None = None) -> None:
    """Runs one verb.

    Args:
        args: stands for `sys.argv[1:]`.

    Raises:
        SystemExit: with code 2 after a user's mistake, which is named on stderr in a line or two.
    """
    # Read when torch starts its threads: those that wait then sleep, where other work goes on too.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    argv = in_arguments(sys.argv[1:] if args is None else args)
    try:
        answer = first_look(argv)
        if answer:
            sys.stdout.write(answer)
            return
        from shortcut_lightning.cli.app import run  # here, because it imports torch and lightning

        run(argv)
    except UserError as error:
        if os.environ.get(DEBUG):
            raise
        who = "" if is_first_process() else "in another process: "
        sys.stderr.write(f"error: {who}{error}\n")
        raise SystemExit(2) from None
