"""The argument parser: no abbreviations, errors in a line or two, nothing dropped silently."""

import ast
import functools
import inspect
import logging
import re
from collections.abc import Callable
from pkgutil import resolve_name
from typing import Any, NoReturn

from jsonargparse import Namespace, get_loader, set_loader
from jsonargparse._loaders_dumpers import set_omegaconf_loader
from jsonargparse.typing import Path_fr
from lightning.pytorch.cli import LightningArgumentParser
from yaml import YAMLError

from shortcut_lightning import presets
from shortcut_lightning.cli.config_files import parsed
from shortcut_lightning.cli.errors import UserError, notice
from shortcut_lightning.cli.explain import explain
from shortcut_lightning.cli.numbers import Help, refuse_numbers


class ShortcutParser(LightningArgumentParser):
    """LightningArgumentParser that raises `UserError` instead of printing its usage."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _load_with_care()
        super().__init__(*args, **{"allow_abbrev": False, "formatter_class": Help, **kwargs})

    def parse_args(self, *args: Any, **kwargs: Any) -> Namespace:  # type: ignore[override]
        """See `jsonargparse`. Refuses numbers outside the ranges that the arguments declare."""
        config = super().parse_args(*args, **kwargs)
        if self.exit_on_error:  # not the parser of a nested class
            refuse_numbers(self, config)
            verbs = getattr(self._subcommands_action, "choices", None) or {}
            if verb := verbs and config.get("subcommand"):
                refuse_numbers(verbs[verb], config[verb])
        return config

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:  # the parser of a nested class; the outer one reports
            super().error(message, ex)
        verbs = getattr(self._subcommands_action, "choices", None) or {}
        options = {
            option.removeprefix("--")
            for parser in (self, *verbs.values())
            for action in parser._actions
            for option in action.option_strings
            if option.startswith("--")
        }
        raise UserError(explain(message, options, getattr(self, "args", ()))) from ex


@functools.cache
def _load_with_care() -> None:
    """Every YAML text that a parser loads is refused where it hides something, and may name presets
    in the place of files."""
    set_omegaconf_loader("omegaconf+")
    for mode in ("yaml", "omegaconf+"):
        set_loader(mode, _with_care(get_loader(mode)), exceptions=(YAMLError,))


def _with_care(load: Callable[[str], Any]) -> Callable[[str], Any]:
    def with_care(text: str) -> Any:
        if re.match(r"\s*[\[{]", text) or "\n" in text.strip():
            try:
                parsed(text, "YAML")
            except UserError as error:
                if not isinstance(error.__cause__, YAMLError):  # which `load` reports
                    raise
        return presets.in_values(load(text), _is_own_file)

    return with_care


def _is_own_file(given: str) -> bool:
    """Whether it is a file, seen from the YAML file that names it."""
    try:
        return bool(Path_fr(given))
    except TypeError:
        return False


class _ClassSwitches(logging.Handler):
    """Tells which settings are lost when a class is replaced by one that does not take them.

    jsonargparse drops them with no more than a debug record. Values that are the old class's
    defaults were set by nobody and are not worth a word.
    """

    pattern = re.compile(
        r"Due to class_path change from '(.+)' to '(.+)', discarding init_args: (.*)\.$", re.DOTALL
    )

    def __init__(self) -> None:
        super().__init__()
        self.told: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        match = self.pattern.match(record.getMessage())
        if not match or match[0] in self.told:
            return
        self.told.add(match[0])
        old, new, dropped = match.groups()
        if lost := _set_by_user(old, dropped):
            names = (path.rsplit(".", 1)[-1] for path in (old, new))
            notice("warning: {} replaced by {}, which takes no {}".format(*names, lost))


def _set_by_user(class_path: str, dropped: str) -> str:
    """The dropped settings that differ from the class's defaults, as "a=1, b=2"."""
    try:
        settings: dict[str, Any] = ast.literal_eval(dropped)
    except (ValueError, SyntaxError):  # a nested class among them
        return dropped
    known = inspect.signature(resolve_name(class_path)).parameters
    return ", ".join(
        f"{key}={value!r}"
        for key, value in settings.items()
        if key not in known or known[key].default != value
        if value is not None or known[key].default is not inspect.Parameter.empty
    )


def class_switches() -> logging.Logger:
    """A logger for jsonargparse that speaks only of settings lost in a change of class."""
    logger = logging.getLogger("shortcut_lightning.cli.class_switches")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    logger.handlers = [_ClassSwitches()]
    return logger
