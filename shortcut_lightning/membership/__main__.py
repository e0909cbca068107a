"""An audit: python -m shortcut_lightning.membership --config FILE --output FOLDER

The same settings as the verb `audit`. Exits with 2 and one line for a mistake of the user.
"""

import sys
from pathlib import Path

from jsonargparse import ArgumentParser

from shortcut_lightning.membership.audit import Audit


def parser() -> ArgumentParser:
    """`--config`, `--output` and `--audit.*`."""
    made = ArgumentParser(prog="python -m shortcut_lightning.membership")
    made.add_argument("--config", action="config", help="A file of settings; several are merged.")
    made.add_argument(
        "--output",
        type=str,
        default="runs/audit/report",
        help="Folder of report.json, .html, .csv.",
    )
    made.add_class_arguments(Audit, "audit")
    return made


def main(args: list[str] | None = None) -> int:
    """Runs; 0 when the audit was made, whatever it found."""
    reader = parser()
    try:
        chosen = reader.instantiate(reader.parse_args(args))
        result = chosen.audit.run(Path(chosen.output))
    except ValueError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write(f"{result.verdict.text}\n{Path(chosen.output) / 'report.html'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
