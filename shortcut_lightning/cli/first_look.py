"""What can be said about a command line before torch and lightning are imported.

The imports take seconds; a misspelt verb, an option of another program or a broken config file
are told at once.
"""

import os
from pathlib import Path

from shortcut_lightning import __version__, presets
from shortcut_lightning.cli.config_files import (
    config_files,
    parsed,
    reached,
    read,
    refuse_pipe,
    refuse_pipes,
)
from shortcut_lightning.cli.errors import UserError, did_you_mean, listed, no_file
from shortcut_lightning.cli.help import help_for
from shortcut_lightning.cli.old_names import moved, moved_in, new_name
from shortcut_lightning.cli.verbs import PROGRAM, VERBS, overview
from shortcut_lightning.files.names import shown


def first_look(argv: list[str]) -> str:
    """The answer to what needs no imports: help, `--version`, `presets`; "" for a command to run.

    Raises:
        UserError: no or wrong verb, an old option name, a missing or broken YAML file.
    """
    if argv and argv[0] in ("-h", "--help"):
        return overview()
    if "--version" in argv[:2]:
        return f"{PROGRAM} {__version__}\n"
    _check_verb(argv)
    if text := help_for(argv):
        return text
    if argv[0] == "presets":
        return _presets(argv[1:])
    for option in argv[1:]:
        if new := new_name(option):
            raise UserError(f"{option.split('=')[0]} is an option of another program; here: {new}")
        if option.startswith("--") and (new := moved(option)):
            raise UserError(f"{option.split('=')[0]} has moved; it is --{new} now")
    _check_utf_8(argv)
    refuse_pipes(argv)
    for path in config_files(argv):
        _check_config(path, argv[0])
    reached(argv)
    return ""


def _presets(words: list[str]) -> str:
    if options := [word for word in words if word.startswith("-")]:
        raise UserError(f"presets: no option '{options[0]}'; words alone, which a line must have")
    return presets.listing(words)


def _check_utf_8(argv: list[str]) -> None:
    """Settings are kept in files of UTF-8, so a name that is none would be in the way when the work
    is done. Folders that are not kept there, copies' and an audit's, may be called anything."""
    option = ""
    for word in argv[1:]:
        if word.startswith("-"):
            option = word.partition("=")[0]
        if word != word.encode("utf-8", "replace").decode() and option != "--output":
            if argv[0] == "audit" and option.startswith("--audit."):
                continue
            value = word.partition("=")[2] if word.startswith("-") else word
            raise UserError(
                f"{shown(option)}: '{shown(value)}' is not UTF-8, in which settings are kept;"
                " rename it, or write it in UTF-8"
            )


def _check_verb(argv: list[str]) -> None:
    if not argv:
        raise UserError(f"no verb given; write {PROGRAM} VERB with VERB one of {listed(VERBS)}")
    if argv[0].startswith("-"):
        raise UserError(f"the verb comes before {argv[0]}; it is one of {listed(VERBS)}")
    if argv[0] not in VERBS:
        hint = did_you_mean(argv[0], VERBS)
        raise UserError(f"no verb '{argv[0]}'{hint}\n  verbs: {listed(VERBS)}")


def _check_config(path: Path, verb: str) -> None:
    refuse_pipe(path)
    if path.is_dir():
        raise UserError(f"--config: '{path}' is a folder; give a file in it")
    if not path.is_file():
        raise UserError(no_file("--config", os.fspath(path), known=presets.names("config", verb)))
    settings = parsed(read(path), f"--config: '{path}'")
    if not isinstance(settings, dict):
        raise UserError(f"--config: '{path}' must hold `key: value` pairs such as `model: ...`")
    if found := moved_in(settings):
        told = ", ".join(f"{old} is {new}" for old, new in found.items())
        raise UserError(f"--config: '{path}' has keys that have moved: {told}")
