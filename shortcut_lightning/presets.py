"""The recipes and fragments that come with the program, found by name from anywhere.

`--config quickstart`, `--data.attack pocket/aspl`, `--data.purifiers "[jpeg, code_sr_pocket]"`, and
the same names in the YAML files of a user. In a checkout they lie in `configs/`, in an installed
package inside it. A file of the user's own wins over a preset of that name.
"""

import functools
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

_HERE = Path(__file__).resolve().parent
_PLACES = (_HERE / "configs", _HERE.parent / "configs")
FOLDER = next((place for place in _PLACES if (place / "quickstart.yaml").is_file()), _PLACES[0])

# The last part of an option's name -> the folders of its presets. Names are relative to the first
# folder that has them; each also goes by its whole path: `attacks/pocket/aspl`.
_ROOMS: dict[str, tuple[str, ...]] = {
    "config": ("",),
    "base": ("bench",),
    "attack": ("attacks",),
    "attacks": ("class_attacks",),
    "purifiers": ("purifiers",),
    "transplant": ("purifiers",),
    "detector": ("detectors",),
    "erasing": ("erasing",),
    "decoupling": ("decoupling",),
    "contamination": ("concepts",),
    "model": ("unlearning", "models"),
}
# Verbs whose configurations are of their own kind; a matrix lays files over each other by `config`.
_VERBS = {"bench": ("bench",), "audit": ("audit",), "": ("bench",)}
_RECIPE = "trainer|model|data|program"
_KINDS = {"bench": "base", "audit": "audit"}


@functools.cache
def _all() -> dict[str, Path]:
    """Every preset by its path in the folder, without the suffix."""
    files = sorted(FOLDER.rglob("*.yaml"))
    return {path.relative_to(FOLDER).with_suffix("").as_posix(): path for path in files}


def names(option: str, verb: str = "") -> list[str]:
    """Names of the presets that an option takes, in their short form."""
    recipe = _KINDS.get(verb, _RECIPE) if _last(option) in ("config", "base") else ""
    found: list[str] = []
    for room in _rooms(option, verb):
        prefix = f"{room}/" if room else ""
        for whole, file in _all().items():
            name = whole.removeprefix(prefix)
            of_room = whole.startswith(prefix) and "/" not in name.removeprefix("pocket/")
            if of_room and (room or name == whole.removeprefix("pocket/")):
                found += [name] if _is(file, recipe) and name not in found else []
    return found


def find(name: str, option: str, verb: str = "") -> Path | None:
    """The file of a preset, None for a name that is none.

    Args:
        name: such as `quickstart`, `pocket/aspl`, or as a checkout has it, `configs/sd15.yaml`.
        option: the option it is given to, such as `data.attack`.
        verb: of the command line; `bench --config small` is `bench/small`.
    """
    rooms = _rooms(option, verb)
    if not rooms:
        return None
    if whole := re.fullmatch(r"(?:\./)?configs/(.+)\.yaml", name):
        return _all().get(whole[1])
    tried = (f"{room}/{name}" if room else name for room in (*rooms, ""))
    return next((_all()[path] for path in tried if path in _all()), None)


def _rooms(option: str, verb: str) -> tuple[str, ...]:
    last = _last(option)
    return (_VERBS.get(verb, ()) if last == "config" else ()) + _ROOMS.get(last, ())


def _last(option: str) -> str:
    return option.rstrip("+").rsplit(".", 1)[-1]


@functools.cache
def _is(file: Path, kind: str) -> bool:
    """Whether a file has such keys at its top; for no kind, whether it is what one option takes."""
    text = file.read_text("utf-8")
    return bool(re.search(rf"^({kind or f'{_RECIPE}|audit|base'}):", text, re.M)) == bool(kind)


def in_arguments(argv: Sequence[str]) -> list[str]:
    """A command line with the paths of presets in the place of their names."""
    verb = argv[0] if argv else ""
    words = list(argv)
    for place, word in enumerate(argv):
        option, equals, value = word.partition("=")
        key = "config" if option == "-c" else option.removeprefix("--")
        if key == option:
            continue
        if equals:
            words[place] = f"{option}={_value_in_arguments(value, key, verb)}"
        elif place + 1 < len(argv):
            words[place + 1] = _value_in_arguments(argv[place + 1], key, verb)
    return words


def _value_in_arguments(value: str, option: str, verb: str) -> str:
    if not _rooms(option, verb):
        return value
    if not value.startswith("["):
        return os.fspath(_located(value, option, verb, os.path.isfile))
    try:
        given = yaml.safe_load(value)
    except yaml.YAMLError:
        return value
    found = _located(given, option, verb, os.path.isfile)
    return value if found == given else json.dumps(found)


def in_values(data: Any, exists: Callable[[str], bool] = os.path.isfile) -> Any:
    """What a YAML file says, with the paths of presets in the place of their names.

    Args:
        data: the parsed file.
        exists: whether a path as the file has it is a file of the user's.
    """
    if isinstance(data, list):
        return [in_values(item, exists) for item in data]
    if not isinstance(data, Mapping):
        return data
    found = {key: in_values(value, exists) for key, value in data.items()}
    return {
        key: _located(value, key, "", exists)
        if isinstance(key, str) and isinstance(value, str | list)
        else value
        for key, value in found.items()
    }


def mentioned(data: Any) -> Iterator[Path]:
    """The presets that a parsed YAML file names."""
    if isinstance(data, list):
        for item in data:
            yield from mentioned(item)
    elif isinstance(data, Mapping):
        for key, value in data.items():
            yield from mentioned(value)
            for name in value if isinstance(value, list) else [value]:
                if isinstance(key, str) and isinstance(name, str) and (file := find(name, key)):
                    yield file


def _located(value: Any, option: str, verb: str, exists: Callable[[str], bool]) -> Any:
    """A name as its file's path. In a list, where one file cannot hold several entries, the entries
    of such a preset instead."""
    if isinstance(value, str):
        file = None if exists(value) else find(value, option, verb)
        return os.fspath(file) if file else value
    if not isinstance(value, list):
        return value
    entries: list[Any] = []
    for item in value:
        path = _located(item, option, verb, exists)
        parsed = _parsed(path) if path != item else None
        entries += parsed if isinstance(parsed, list) else [path]
    return entries


def _parsed(path: str) -> Any:
    return yaml.safe_load(Path(path).read_text("utf-8"))


def listing(words: Sequence[str] = ()) -> str:
    """Every preset with a line of its own, by the option that takes it.

    Args:
        words: only presets are shown whose name, option or line has all of these.
    """
    blocks, left = [], {name: file for name, file in _all().items() if name != "bench/sweep"}
    for option, verb, title in _TITLES:
        found = {name: find(name, option, verb) for name in names(option, verb)}
        files = {name: file for name, file in found.items() if file in left.values()}
        left = {name: file for name, file in left.items() if file not in files.values()}
        blocks.append(_block(title, files, words))
    blocks.append(_block("--config NAME, for parts of the above", left, words))
    return "\n".join([*filter(None, blocks), f"The files lie in {FOLDER}"]) + "\n"


_TITLES = (
    ("config", "fit", "fit, test, protect, ... --config NAME"),
    ("config", "audit", "audit --config NAME"),
    ("config", "bench", "bench --config NAME"),
    ("data.attack", "", "--data.attack NAME"),
    ("data.purifiers", "", "--data.purifiers NAME, or several: [NAME, NAME]"),
    ("data.detector", "", "--data.detector NAME"),
    ("data.decoupling", "", "--data.decoupling NAME"),
    ("data.erasing", "", "--data.erasing NAME"),
    ("data.contamination", "", "--data.contamination NAME"),
    ("data.noisy_class_images.attacks", "", "--data.noisy_class_images.attacks NAME"),
    ("model", "", "--model NAME"),
)


def _block(title: str, files: Mapping[str, Path | None], words: Sequence[str]) -> str:
    lines = {name: about(file) for name, file in files.items() if file}
    lines = {
        name: line
        for name, line in lines.items()
        if all(word.lower() in f"{title} {name} {line}".lower() for word in words)
    }
    width = max(map(len, lines), default=0)
    return "\n".join([title, *(f"  {n:{width}}  {s}" for n, s in lines.items()), ""] * bool(lines))


def about(file: Path, limit: int = 100) -> str:
    """The first sentence of a preset's first comment, on one line; "" without one."""
    comment: list[str] = []
    for line in file.read_text("utf-8").splitlines():
        if not line.startswith("#") or (comment and re.match(r"#(\s*$|  )", line)):
            break
        comment.append(line[1:].strip())
    text = re.split(r"[.:](?:$|\s(?=--))|\.\s|(?<=\?)\s", " ".join(comment), maxsplit=1)[0]
    return text if len(text) <= limit else text[:limit].rsplit(" ", 1)[0].rstrip(",;:") + " ..."
