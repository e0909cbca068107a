"""What can be said about a command line before torch and lightning are imported.

The imports take seconds; a misspelt verb, an option of another program or a broken config file
are told at once.
"""

import os
import re
from itertools import pairwise
from pathlib import Path

import yaml

from shortcut_lightning import __version__
from shortcut_lightning.cli.errors import UserError, did_you_mean, listed, no_file
from shortcut_lightning.cli.old_names import new_name
from shortcut_lightning.cli.verbs import PROGRAM, VERBS, overview


def first_look(argv: list[str]) -> str:
    """The answer to `--help` and `--version`; "" if the command line has to be run.

    Raises:
        UserError: no or wrong verb, an old option name, a missing or broken config file.
    """
    if argv and argv[0] in ("-h", "--help"):
        return overview()
    if "--version" in argv[:2]:
        return f"{PROGRAM} {__version__}\n"
    _check_verb(argv)
    for option in argv[1:]:
        if new := new_name(option):
            raise UserError(f"{option.split('=')[0]} is an option of another program; here: {new}")
    for path in config_files(argv):
        _check_config(path)
    return ""


def config_files(argv: list[str]) -> list[Path]:
    """The values of `--config` that are paths (it also takes YAML text and URLs)."""
    given = [a.split("=", 1)[1] for a in argv if re.match(r"(--config|-c)=", a)]
    given += [value for key, value in pairwise(argv) if key in ("--config", "-c")]
    return [Path(value) for value in given if not re.search(r"://|\n|[{}]", value)]


def _check_verb(argv: list[str]) -> None:
    if not argv:
        raise UserError(f"no verb given; write {PROGRAM} VERB with VERB one of {listed(VERBS)}")
    if argv[0].startswith("-"):
        raise UserError(f"the verb comes before {argv[0]}; it is one of {listed(VERBS)}")
    if argv[0] not in VERBS:
        hint = did_you_mean(argv[0], VERBS)
        raise UserError(f"no verb '{argv[0]}'{hint}\n  verbs: {listed(VERBS)}")


def _check_config(path: Path) -> None:
    if not path.is_file():
        raise UserError(no_file("--config", os.fspath(path)))
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or "cannot be read"
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1} column {mark.column + 1}" if mark else ""
        raise UserError(f"--config: '{path}'{where} is not YAML: {problem}") from error
    if not isinstance(content, dict):
        raise UserError(f"--config: '{path}' must hold `key: value` pairs such as `model: ...`")
