"""The answers to `VERB --help` and `VERB --KEY.help [CLASS]`, before anything heavy is imported.

The project's own keys and classes come first, each with a line; Lightning's behind them, where they
are asked for. What is not found in the source, as a user's own class, is left to the parser.
"""

import re
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

from shortcut_lightning import presets
from shortcut_lightning.cli.class_index import class_index, concrete
from shortcut_lightning.cli.source import (
    Argument,
    Described,
    described,
    lightning,
    line,
    method,
    options,
)
from shortcut_lightning.cli.verbs import PROGRAM, VERBS

_HERE = Path(__file__).parent
# The class behind a key of the first level, unless the command line names another.
_ROOTS = {"model": "DreamBooth", "data": "PersonalizationDataModule", "audit": "Audit"}
_FAMILIES = {"model": "LightningModule", "data": "LightningDataModule"}
_LIGHTNINGS = ("fit", "validate", "test", "predict")
_OWN = ("protect", "purify", "detect")
# Of Lightning's trainer, what most people set.
_OFTEN = (
    "max_steps", "accelerator", "devices", "precision", "accumulate_grad_batches",
    "gradient_clip_val", "val_check_interval", "callbacks", "logger",
)  # fmt: skip
_CKPT = Argument(
    "ckpt_path",
    "FILE or last",
    "",
    "A checkpoint to go on with (fit) or to measure; last is the newest run's of the same name",
)

_LEARNING = (
    Argument("optimizer", "CLASS", "AdamW of the model's settings", "A class of torch.optim, or"
             " one by its path; rates stay model.learning_rate and its like"),
    Argument("lr_scheduler", "CLASS", "model.lr_scheduler", "A class of torch.optim.lr_scheduler,"
             " or one by its path"),
)  # fmt: skip


def help_for(argv: Sequence[str]) -> str:
    """The answer to a command line that asks for help; "" if it does not, or the parser has to."""
    for place, word in enumerate(argv[1:], 1):
        if word in ("-h", "--help"):
            return _verb(argv[0], argv)
        if asked := re.fullmatch(r"--([\w.]+)\+?\.help(?:=(.*))?", word):
            following = argv[place + 1] if place + 1 < len(argv) else ""
            name = asked[2] or ("" if following.startswith("-") else following)
            return _key(asked[1], name, argv)
    return ""


def _verb(verb: str, argv: Sequence[str]) -> str:
    if verb == "presets":
        return f"usage: {PROGRAM} presets [WORD]...\n\n{VERBS[verb]} Words choose among them.\n"
    parts = [
        f"usage: {PROGRAM} {verb} [--config FILE or PRESET]... [--key value]...\n\n{VERBS[verb]}",
        _block(f"Options of {verb}", "", _verb_options(verb)),
    ]
    if verb == "audit":
        parts += [_keys("audit", "Audit"), _more("audit.scores", "audit.target")]
    if verb in (*_LIGHTNINGS, *_OWN, "verify"):
        for root in ("data", "model"):
            name = _class_of(root, argv)
            others = [each for each in concrete(_FAMILIES[root], class_index()) if each != name]
            parts.append(_keys(root, name))
            parts.append(f"  Other classes, by --{root} CLASS: {', '.join(others)}")
        trainer = described("Trainer")
        often = [a for a in trainer.arguments if a.name in _OFTEN] if trainer else []
        parts.append(_block("Training (all options: --trainer.help)", "trainer.", often))
        keys = ("data.attack", "data.purifiers", "data.detector", "trainer.callbacks")
        parts.append(_more(*keys))
    return "\n\n".join(filter(None, parts)) + "\n"


def _verb_options(verb: str) -> list[Argument]:
    files = {name: [f"{name}.py"] for name in ("audit", "bench", "results", "verify")}
    found = list(options([_HERE / name for name in files.get(verb, ["app.py"])]))
    if verb == "bench" and (matrix := described("Matrix")):
        return [*found, *matrix.arguments]
    config = Argument("config", "FILE or PRESET", "", "Settings; later files are laid over earlier")
    seed = Argument("seed_everything", "int", "0", "The seed of every random number")
    if verb == "verify":
        runs = [each for each in options([_HERE / "app.py"]) if each.name == "output_dir"]
        return [config, *found, seed, *runs]
    if verb in files:
        return found
    own = [a for a in method(_HERE / "app.py", "ShortcutTrainer", verb) if a.name not in _FILLED]
    return [config, *own, *([_CKPT] if verb in _LIGHTNINGS else []), seed, *_LEARNING, *found]


_FILLED = ("model", "datamodule")


def _class_of(root: str, argv: Sequence[str]) -> str:
    """The class that the command line names for `model` or `data`, or the usual one."""
    given = re.search(rf"(?:^|\n)--{root}[=\n](\S+)", "\n".join(argv))
    return given[1] if given and described(given[1]) else _ROOTS[root]


def _keys(key: str, name: str) -> str:
    found = described(name)
    if not found:
        return ""
    return _block(f"{key}: {found.name}. {line(found.about, 90)}", f"{key}.", found.arguments)


def _more(*keys: str) -> str:
    rows = [f"  --{key}.help [CLASS]" for key in keys]
    return "\n".join(["The classes behind a key, and what one of them takes:", *rows])


def _key(key: str, name: str, argv: Sequence[str]) -> str:
    """The answer to `--KEY.help` and `--KEY.help CLASS`."""
    if name and (file := presets.find(name, key)):
        return f"# {file}\n{file.read_text('utf-8')}"
    if name:
        found = described(name)
        return _page(key, found) if found else ""
    root, *path = key.split(".")
    if root == "trainer" and not path:
        trainer = described("Trainer")
        return _page(key, trainer) if trainer else ""
    if root in _FAMILIES and not path:
        return _classes(key, [_FAMILIES[root]])
    owner = described(_class_of(root, argv)) if root in _ROOTS else described("Trainer")
    if argv[0] == "bench":
        owner, path = described("Matrix"), [root]
    if root == "audit" and not path:
        return _page(key, owner) if owner else ""
    argument = None
    for part in path:
        argument = _argument(owner, part) if owner else None
        owner = _settings(argument) if argument else None
    if argument is None:
        return ""
    families = [each for each in argument.classes if _descend(each)]
    if families:
        return _classes(key, families, argument.about)
    if owner:
        return _page(key, owner)
    return _block("", "", [argument._replace(name=key)], whole=True) + "\n"


def _argument(owner: Described, name: str) -> Argument | None:
    """An argument of a class, or of the first that inherits from it and has one of that name."""
    heirs = (found for heir in _descend(owner.name) if (found := described(heir)))
    known = (a for each in (owner, *heirs) for a in each.arguments if a.name == name)
    return next(known, None)


def _settings(argument: Argument) -> Described | None:
    """The class that an argument takes."""
    names = (*argument.classes, argument.default)
    return next((found for name in names if (found := _known(name))), None)


def _known(name: str) -> Described | None:
    return described(name) if name.isidentifier() and name[:1].isupper() else None


def _descend(base: str) -> list[str]:
    if not base[:1].isupper():
        return []
    ours = concrete(base, class_index())
    theirs = concrete(base, lightning()) if base in ("Callback", "Logger") else []
    return [*ours, *(name for name in theirs if name not in ours and not name.startswith("_"))]


def _classes(key: str, families: Iterable[str], about: str = "") -> str:
    names = [name for family in families for name in _descend(family)]
    known = {name: found for name in dict.fromkeys(names) if (found := described(name))}
    width = max(map(len, known), default=0)
    rows = [
        f"  {n:{width}}  {line(found.about, _columns() - width - 4)}" for n, found in known.items()
    ]
    named = presets.names(key)
    tail = [f"What one takes: --{key}.help CLASS"]
    if named:
        fill = textwrap.fill(
            ", ".join(named), _columns(), initial_indent="  ", subsequent_indent="  "
        )
        tail += ["", f"Presets for --{key} (see `{PROGRAM} presets`):", fill]
    head = f"Classes for --{key}" + (f": {line(about, 80)}" if about else "")
    return "\n".join([head, "", *rows, "", *tail]) + "\n"


def _page(key: str, found: Described) -> str:
    head = textwrap.fill(f"{found.name} ({found.module}): {found.about}", _columns())
    return f"{head}\n\n" + _block("", f"{key}.", found.arguments, whole=True).lstrip("\n") + "\n"


def _block(title: str, prefix: str, arguments: Iterable[Argument], whole: bool = False) -> str:
    """Arguments with their kinds, defaults and texts: the first sentence of each, or all of it."""
    rows = [title] if title else []
    for each in arguments:
        default = f" = {each.default}" if each.default else ""
        kind = f" {each.kind}" if each.kind else ""
        rows.append(f"  --{prefix}{each.name}{kind}{default}")
        if each.about:
            text = each.about if whole else line(each.about, _columns() - 6)
            indent = " " * 6
            rows.append(
                textwrap.fill(text, _columns(), initial_indent=indent, subsequent_indent=indent)
            )
        if group := _group(each):
            rows.append(_block("", f"{prefix}{each.name}.", group.arguments, whole))
    return "\n".join(rows)


def _group(argument: Argument) -> Described | None:
    """The settings that lie behind an argument for order's sake alone, and are shown with it."""
    found = described(argument.default) if argument.default in argument.classes else None
    return found if found and found.module.endswith(".settings") else None


def _columns() -> int:
    return min(shutil.get_terminal_size((100, 24)).columns, 120)
