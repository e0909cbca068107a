"""Says jsonargparse's error messages in a line or two.

Its messages are trees in text: keys and class paths lead to the leaf that says what is wrong, once
per alternative of a type. The first leaf belongs to the alternative that was meant; the path to it
is the key. A message of an unknown form is passed on, shortened.
"""

import inspect
import re
from abc import ABC
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, get_args

from lightning.pytorch import LightningDataModule, LightningModule, Trainer

from shortcut_lightning import presets
from shortcut_lightning.cli.class_index import class_index, concrete, why_not_imported
from shortcut_lightning.cli.errors import did_you_mean, listed, no_file
from shortcut_lightning.cli.old_names import MOVED, OLD_VALUES
from shortcut_lightning.cli.optimizers import FAMILIES, no_such_setting, wrong_class

_TREE = re.compile(
    r'(?:Parser key "|--)(?P<key>[\w.]+)(?:"|\.help: )'
    r"|Problem with given class_path '(?P<class_path>[^']+)'"
    r"|Option '(?P<option>[^']+)' is not accepted"
    r"|(?:module '[^']+' has no attribute '|No module named ')(?P<missing>[^']+)'"
    r"|(?:Expected a dot import path string|Unexpected import path format): (?P<short_name>\S+)"
    r"|Group '(?P<group>[\w.]+)' does not accept option '(?P<member>[\w.]+)'"
    r"|unrecognized arguments: --(?P<whole_member>[\w.]+)"
    r"|the following arguments are required: (?P<needed>.+)"
    r"|Unable to load config '(?P<no_config>[^']+)'"
    r"|Not a valid subclass of \w+\. Got value: (?P<no_class>.*)$"
    r"|Expected an? (?!path but|dot import)(?P<expected>.+?)(?:\. Got value: (?P<value>.*))?$",
    re.MULTILINE,
)
_BASES: dict[str, tuple[type, ...]] = {
    "model": (LightningModule,),
    "data": (LightningDataModule,),
    **FAMILIES,
}
_SPEC = ("class_path", "init_args", "dict_kwargs")


def explain(message: str, options: Collection[str], args: Sequence[str] = ()) -> str:
    """A message for the user.

    Args:
        message: what jsonargparse's parser reports.
        options: every option of the command line without its dashes.
        args: the command line.
    """
    if message.startswith("Parser key") and (leaf := _leaf(message)):
        return leaf
    if match := re.match(r"unrecognized arguments: (\S+)", message):
        return _unknown_option(match[1], options)
    if match := re.search(r"option '([^']+)'", message) or re.match(r"Option '([^']+)'", message):
        return _unknown_option(f"--{match[1]}", options)
    if match := re.match(r"argument (\S+): expected one argument", message):
        return f"{_without_value(match[1], args)} needs a value"
    if match := re.search(r"the following arguments are required: (.*)", message):
        names = match[1].split(", ")  # those of a verb stand behind it, as in protect.output
        needed = (name if name in options else name.split(".")[-1] for name in names)
        return f"needed: {', '.join(f'--{name}' for name in needed)}"
    return _leaf(message) or " ".join(message.split())[:400]


def explain_interpolation(error: Exception) -> str:
    """A message for a `${...}` that cannot be resolved."""
    wanted = re.search(r"key '([^']+)' not found", str(error))
    key = re.search(r"full_key: \w+\.(\S+)", str(error))
    where = f"{key[1]}: " if key else ""
    if not wanted:
        return where + str(error).splitlines()[0]
    return (
        f"{where}${{{wanted[1].lstrip('.')}}} names no setting; write the full key, such as"
        " ${data.init_args.instance_prompt}, in a config file"
    )


def _without_value(option: str, args: Sequence[str]) -> str:
    """The option as it was written: jsonargparse says --data where --data.attack has no value."""
    for arg, following in pairwise([*args, "--"]):
        bare = "=" not in arg and following.startswith("--")
        if bare and f"{arg}.".startswith(f"{option}."):
            return arg
    return option


def _unknown_option(given: str, options: Iterable[str]) -> str:
    """For an option nobody knows, on the command line or at the top of a config file."""
    if not given.startswith("-"):
        return f"unexpected argument '{given}'; options are written --key value"
    key = given.split("=")[0].removeprefix("--")
    options = sorted(options)
    head, _, tail = key.partition(".")
    # `max_steps` is `trainer.max_steps`; `trainr.max_steps` is wrong in its head only.
    same_end = [option for option in options if option.rsplit(".", 1)[-1] == key]
    heads = {option.split(".")[0] for option in options}
    if same_end:
        hint = f"; did you mean '{same_end[0]}'?"
    elif tail and head not in heads and (close := did_you_mean(head, heads)):
        hint = f"{close[:-2]}.{tail}'?"
    else:
        hint = did_you_mean(key, options)
    top = sorted(option for option in heads if "." not in option and option not in ("help",))
    return f"no option '{key}'{hint}" + ("" if hint else f"\n  options: {listed(top)}")


def _leaf(message: str) -> str:
    """Walks to the first leaf and says it with its key."""
    path: list[str] = []
    owner = class_path = ""  # the class that has the last key as its argument; that key's class
    matches = list(_TREE.finditer(message))
    for position, match in enumerate(matches):
        if match["key"]:
            path.append(match["key"])
            owner, class_path = class_path, ""
        elif match["class_path"]:
            class_path = match["class_path"]
        else:
            return _said(matches[position:], path, owner, class_path, message)
    return ""


def _said(
    leaves: list[re.Match[str]], path: list[str], owner: str, class_path: str, message: str
) -> str:
    """What the first of the leaves says about the key that `path` leads to."""
    key, leaf = ".".join(path), leaves[0]
    if leaf["option"]:
        return _wrong_argument(key, class_path, leaf["option"], message)
    if leaf["expected"]:
        value = leaf["value"] or _given_value(message, leaf.end())
        return _wrong_value(key, _bare(value), _alternatives(leaves))
    if member := leaf["member"] or leaf["whole_member"]:
        group, _, member = f"{leaf['group'] or ''}.{member}".strip(".").rpartition(".")
        if settings := _settings_class(class_path, group):
            return _wrong_argument(f"{key}.{group}", settings, member, message)
        return _wrong_argument(key, class_path, group.split(".")[0], message)
    if leaf["needed"]:
        name = class_path.rsplit(".", 1)[-1]
        return f"{key}: {name} needs '{leaf['needed']}'; --{key}.{leaf['needed']} sets it"
    if leaf["no_config"]:
        settings = _settings_class(owner, path[-1].rsplit(".", 1)[-1]) if owner else ""
        options = f"\n  options: {listed(_arguments(settings))}" if settings else ""
        return no_file(key, leaf["no_config"], known=presets.names(key)) + options
    if (leaf["no_class"] or "").startswith("["):
        return f"{key}: a list inside the list; take one, --{key}+ adds another"
    given = leaf["short_name"] or leaf["no_class"] or class_path or leaf["missing"]
    return _wrong_class(key, given, _known_classes(path, owner), "" if leaf["missing"] else key)


def _given_value(message: str, start: int) -> str:
    match = re.compile(r"Given value: (.*)$", re.MULTILINE).search(message, start)
    return match[1] if match else ""


def _bare(value: str) -> str:
    """The value without the wrapping that jsonargparse has for `--a.b=value`."""
    nested = re.search(r"val='(.*)'\)$", value)
    return nested[1] if nested else value


def _alternatives(matches: list[re.Match[str]]) -> list[str]:
    """The types that the leaves side by side ask for, in plain words."""
    words: list[str] = []
    for match in matches:
        if not match["expected"]:
            break
        words += _plain(match["expected"])
    return list(dict.fromkeys(words))


def _plain(expected: str) -> Iterator[str]:
    if "NoneType" in expected:
        return
    if literal := re.search(r"Literal\[(.*)\]", expected):
        yield from (word.strip(" '\"") for word in literal[1].split(","))
    else:
        match = re.search(r"<class '(?:[\w.]+\.)?(\w+)'>", expected)
        lists = ("Iterable", "Sequence")
        yield ("list" if match[1] in lists else match[1]) if match else expected


def _wrong_value(key: str, value: str, allowed: list[str]) -> str:
    if not any(allowed):  # what a user's file raised while it was imported
        return f"{key}: {why_not_imported(value) or f'cannot take {value!r}'}"
    if set(allowed) <= {"int", "float", "str", "bool", "list", "dict"}:
        if allowed == ["list"] and re.search(r"\.ya?ml$", value) and not Path(value).is_file():
            return no_file(key, value)
        named = presets.names(key)
        if allowed == ["list"] and named and value == value.lower():
            return no_file(key, value, known=named) + f"\n  presets: {listed(named)}"
        hint = f"; --{key}+ adds one" if allowed == ["list"] else ""
        return f"{key}: expected {' or '.join(allowed)}, got {value!r}{hint}"
    hint = did_you_mean(OLD_VALUES.get(value, value), allowed)
    return f"{key}: {value!r} is not allowed{hint}\n  allowed: {listed(allowed)}"


def _wrong_argument(key: str, class_path: str, option: str, message: str) -> str:
    if class_path.startswith("lightning.") and option.split(".")[0] not in _arguments(class_path):
        # The mapping was not understood as a class at all: something stands beside `class_path`.
        beside = re.search(r"Given value: \{(.*)\}$", message, re.MULTILINE)
        names = re.findall(r"(?:^|, )'(\w+)':", re.sub(r"\{.*?\}", "", beside[1] if beside else ""))
        if wrong := [name for name in names if name not in _SPEC]:
            hint = did_you_mean(wrong[0], _SPEC) or f"; write {key}.init_args.{wrong[0]}"
            return f"{key}: '{wrong[0]}' cannot stand beside class_path{hint}"
        if key in _BASES:
            known = listed(_known_classes([key], ""))
            return f"{key}.{option}: no class is given; add --{key} CLASS\n  classes: {known}"
    if new := MOVED.get(f"{key}.{option}"):
        return f"{key}.{option} has moved; it is {new} now"
    if elsewhere := no_such_setting(key, option):
        return elsewhere
    allowed = _arguments(class_path)
    name = class_path.rsplit(".", 1)[-1]
    return (
        f"{key}.{option}: {name} takes no '{option}'{did_you_mean(option, allowed)}"
        f"\n  {name} takes: {listed(allowed)}"
    )


def _wrong_class(key: str, given: str, known: list[str], option: str = "") -> str:
    """`option` is the one whose presets may have been meant."""
    named = presets.names(option)
    if re.search(r"\.ya?ml$", given) or ("/" in given and not named):
        return f"{no_file(key, given)}\n  classes: {listed(known)}"
    if failed := wrong_class(key, given) or why_not_imported(given):
        return f"{key}: {failed}"
    short = given.rsplit(".", 1)[-1]
    if named and given == given.lower():
        hint = did_you_mean(short, named) or did_you_mean(short, known)
        return f"{key}: no preset or class '{given}'{hint}\n  presets: {listed(named)}"
    return f"{key}: no class '{given}'{did_you_mean(short, known)}\n  classes: {listed(known)}"


def _known_classes(path: list[str], owner: str) -> list[str]:
    """Names of the classes that the last key of `path` takes, whether imported or not."""
    if not path:
        types: list[type] = []
    elif len(path) == 1 and path[0] in _BASES:
        types = list(_BASES[path[0]])
    else:
        signature = inspect.signature(resolve_name(owner) if owner else Trainer)
        parameter = signature.parameters.get(path[-1].rsplit(".", 1)[-1])
        types = list(classes_in(parameter.annotation)) if parameter else []
    names = {name for base in types for name in concrete(base.__name__, class_index())}
    imported = [c for base in types for c in _subclasses(base) if not _is_base(c)]
    names |= {c.__name__ for c in imported}
    return sorted(name for name in names if not name.startswith("_"))


def _is_base(cls: type) -> bool:
    return inspect.isabstract(cls) or ABC in cls.__bases__


def _settings_class(owner: str, name: str) -> str:
    """Path of the class of settings that an argument of a class takes, "" where there is none."""
    parameter = inspect.signature(resolve_name(owner)).parameters.get(name)
    kinds = classes_in(parameter.annotation) if parameter else iter(())
    return next((f"{kind.__module__}.{kind.__qualname__}" for kind in kinds), "")


def classes_in(annotation: Any) -> Iterator[type]:
    """The classes that an annotation names, those inside `list[...]` and unions too."""
    for part in get_args(annotation):
        yield from classes_in(part)
    if inspect.isclass(annotation) and annotation.__module__ != "builtins":
        yield annotation


def _subclasses(base: type) -> Iterator[type]:
    child: type
    for child in base.__subclasses__():
        yield child
        yield from _subclasses(child)


def _arguments(class_path: str) -> list[str]:
    parameters = inspect.signature(resolve_name(class_path)).parameters
    return [name for name in parameters if name not in ("args", "kwargs")]
