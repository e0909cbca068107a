"""Every number that a user can give has a range, and what lies outside it is refused.

The classes are found as the command line finds them: from models, data modules, callbacks and the
settings of `audit` and `bench`, through all that their arguments may be.
"""

import importlib
import inspect
import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

import pytest
from lightning.pytorch import Callback, LightningDataModule, LightningModule

from shortcut_lightning.audit.audit import Audit
from shortcut_lightning.bench.matrix import Matrix
from shortcut_lightning.cli.app import ShortcutTrainer
from shortcut_lightning.cli.audit import audit_parser
from shortcut_lightning.cli.bench import bench_parser
from shortcut_lightning.cli.class_index import class_index
from shortcut_lightning.cli.explain import classes_in
from shortcut_lightning.cli.keep_last import KeepLast
from shortcut_lightning.cli.verbs import VERBS
from shortcut_lightning.data.copies import Copies
from shortcut_lightning.ranges import Between, declared, refused


def reachable() -> list[type]:
    """The classes that a user can name or set, without the abstract ones."""
    modules = {entry.module for entry in class_index()}
    named = [vars(importlib.import_module(module)).values() for module in sorted(modules)]
    package = {
        each
        for names in named
        for each in names
        if inspect.isclass(each) and each.__module__.startswith("shortcut_lightning.")
    }
    roots = (LightningModule, LightningDataModule, Callback)
    queue = [each for each in package if issubclass(each, roots)] + [Audit, Matrix, Copies]
    found = {KeepLast}
    while queue:
        cls = queue.pop()
        if cls not in found:
            found.add(cls)
            kinds = [k for each in declared(cls).values() for k in classes_in(each.annotation)]
            queue += [each for each in package for kind in kinds if issubclass(each, kind)]
    concrete = (cls for cls in found if not inspect.isabstract(cls))
    return sorted(concrete, key=lambda cls: f"{cls.__module__}.{cls.__qualname__}")


class Number(NamedTuple):
    """A number in an annotation."""

    allowed: Between | None  # where none is declared
    whole: bool
    place: Any  # number -> a value of the whole annotation with it inside


def numbers(annotation: Any, place: Any = lambda number: number) -> Iterator[Number]:
    """The numbers that a value of the annotation may hold."""
    kind, parts = get_origin(annotation), get_args(annotation)
    if annotation in (int, float):
        yield Number(None, annotation is int, place)
    elif kind is Annotated and any(isinstance(part, Between) for part in parts):
        ranges = (part for part in parts if isinstance(part, Between))
        yield from (Number(allowed, parts[0] is int, place) for allowed in ranges)
    elif kind is dict:
        yield from numbers(parts[1], lambda number: place({"key": number}))
    elif kind is tuple and ... not in parts:
        for at, part in enumerate(parts):
            before, after = (0.5,) * at, (0.5,) * (len(parts) - at - 1)
            yield from numbers(part, lambda n, b=before, a=after: place((*b, n, *a)))
    elif (isinstance(kind, type) and issubclass(kind, (list, tuple))) or "Sequence" in str(kind):
        yield from numbers(parts[0], lambda number: place([number]))
    elif kind is not Literal:
        for part in parts:
            yield from numbers(part, place)


def has_a_foreign_constructor(cls: type) -> bool:
    """Whether Lightning declares the arguments."""
    owner = next(each for each in cls.__mro__ if "__init__" in vars(each))
    return owner.__module__.startswith("lightning.")


CLASSES = [cls for cls in reachable() if not has_a_foreign_constructor(cls)]
NUMBERS = [
    pytest.param(cls, name, number, id=f"{cls.__name__}.{name}")
    for cls in CLASSES
    for name, argument in declared(cls).items()
    for number in numbers(argument.annotation)
]


def outside(number: Number) -> list[float]:
    """Below, above, and what is no number."""
    allowed = number.allowed
    assert allowed is not None
    values = [math.nan, -math.inf] + [math.inf] * (not allowed.infinite)
    if math.isfinite(allowed.least):
        values.append(allowed.least if allowed.open in ("least", "both") else allowed.least - 1)
    if math.isfinite(allowed.most):
        values.append(allowed.most if allowed.open in ("most", "both") else allowed.most + 1)
    return values


def inside(number: Number) -> list[float]:
    """At the ends, or beside an end that is excluded."""
    allowed = number.allowed
    assert allowed is not None
    apart = 1 if number.whole else 1e-3
    low = allowed.least + apart * (allowed.open in ("least", "both"))
    high = allowed.most - apart * (allowed.open in ("most", "both"))
    return [value for value in (low, high) if math.isfinite(value)]


def test_the_walk_finds_what_there_is() -> None:
    names = {cls.__name__ for cls in CLASSES}
    assert names > {
        "DreamBooth", "GeometryErasure", "PersonalizationDataModule", "Erasing", "Decoupling",
        "ASPL", "SurrogateTraining", "Adaptive", "NoAttack", "Jpeg", "FaceRestoration", "YuNet",
        "QRCodeDetector", "CsvBoxes", "Watermark", "CLiDThreshold", "ImportantWords", "Membership",
        "EMA", "SampleGrid", "Copies", "Audit", "Matrix", "WorldDataModule", "TextToImageTraining",
    }  # fmt: skip
    assert len(NUMBERS) > 250


@pytest.mark.parametrize(("cls", "name", "number"), NUMBERS)
def test_a_number_of_a_class(cls: type, name: str, number: Number) -> None:
    assert number.allowed is not None, f"{cls.__name__}.{name} has no range (see ranges.py)"
    arguments = declared(cls)
    annotation, default = arguments[name].annotation, arguments[name].default
    for value in inside(number):
        said = [each.value for each in refused(annotation, number.place(value))]
        assert value not in said
    assert default is inspect.Parameter.empty or not list(refused(annotation, default))
    needed = {
        each: None for each, of in arguments.items() if of.default is of.empty and of.kind == 1
    }
    for value in outside(number):
        # Refused before the constructor does anything, so that nothing is loaded here.
        with pytest.raises(
            ValueError, match=rf"^{cls.__name__}\.{name}[.\w]* is [-\w.+]+; it must"
        ):
            cls(**needed | {name: number.place(value)})


@pytest.mark.parametrize("verb", VERBS)
def test_options_of_verbs(verb: str) -> None:
    method = vars(ShortcutTrainer).get(verb)
    for name, argument in declared(method).items() if method else ():
        for number in numbers(argument.annotation):
            assert number.allowed is not None, f"{verb} --{name} has no range"


@pytest.mark.parametrize("parser", [audit_parser, bench_parser])
def test_options_of_parsers(parser: Any) -> None:
    for action in parser()._actions:
        for number in numbers(getattr(action, "_typehint", None) or action.type):
            assert number.allowed is not None, f"--{action.dest} has no range"
