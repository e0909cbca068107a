"""`null` where a value is needed: the parser lets it pass for any type, so it is refused here."""

import inspect
from collections.abc import Iterator
from pkgutil import resolve_name
from typing import Annotated, Any, get_args, get_origin

from jsonargparse import Namespace

from shortcut_lightning.cli.errors import UserError


def refuse_nulls(config: Namespace, where: str) -> None:
    """Raises UserError naming the first option of the class at `where`, or of a class below it,
    that is null and may not be."""
    for option, parameter in _nulls(config.get(where), where):
        kind = parameter.annotation
        if get_origin(kind) is Annotated:  # a number with a range
            kind = get_args(kind)[0]
        kind = getattr(kind, "__name__", None) or str(kind)
        default = parameter.default
        hint = "" if default is parameter.empty else f"; default: {default!r}"
        raise UserError(f"{option}: expected {kind}, got null{hint}")


def _nulls(node: Any, where: str) -> Iterator[tuple[str, inspect.Parameter]]:
    if isinstance(node, list):
        for number, item in enumerate(node):
            yield from _nulls(item, f"{where}.{number}")
    if not isinstance(node, Namespace) or "class_path" not in node:
        return
    parameters = inspect.signature(resolve_name(node.class_path)).parameters
    for name, value in vars(node.get("init_args") or Namespace()).items():
        if value is not None:
            yield from _nulls(value, f"{where}.{name}")
        elif name in parameters and not _may_be_none(parameters[name]):
            yield f"{where}.{name}", parameters[name]


def _may_be_none(parameter: inspect.Parameter) -> bool:
    annotation = parameter.annotation
    return (
        parameter.default is None
        or annotation in (inspect.Parameter.empty, Any)
        or isinstance(annotation, str)
        or type(None) in get_args(annotation)
    )
