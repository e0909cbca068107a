"""What a number may be, declared beside the argument that takes it.

    class Jpeg(Purifier):
        def __init__(self, quality: Annotated[int, Between(1, 100)] = 75) -> None: ...

`Ranged`, a base of every family of classes that a user names, and `ranged`, for a class by itself,
make constructors refuse other values; the command line refuses them by their key before anything
is built, and shows the range in its help. NaN is in no range, and infinity in those that say so.
"""

import functools
import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from numbers import Real
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

C = TypeVar("C", bound=type)


@dataclass(frozen=True, repr=False)
class Between:
    """Finite numbers from `least` to `most`; an end that is `open` does not belong to them.

    Args:
        least: The smallest; -inf for none.
        most: The largest; inf for none.
        open: Which of the two is itself excluded.
        note: What the numbers stand for, such as "in /255".
        infinite: Whether infinity is one of them.
        multiple: What they are multiples of; 0 for nothing.
    """

    least: float = -math.inf
    most: float = math.inf
    open: Literal["", "least", "most", "both"] = ""
    note: str = ""
    infinite: bool = False
    multiple: int = 0

    def __contains__(self, value: float) -> bool:
        if value == math.inf:
            return self.infinite
        low = self.least < value if self.open in ("least", "both") else self.least <= value
        high = value < self.most if self.open in ("most", "both") else value <= self.most
        fits = not self.multiple or value % self.multiple == 0
        return math.isfinite(value) and low and high and fits

    def __repr__(self) -> str:
        """In words, as help and errors show it: `at least 1`, `from 0 to 1`, `above 0`."""
        low = f"above {self.least:.12g}" if self.open in ("least", "both") else ""
        high = f"below {self.most:.12g}" if self.open in ("most", "both") else ""
        if math.isinf(self.least) and math.isinf(self.most):
            said = "finite"
        elif math.isinf(self.most):
            said = low or f"at least {self.least:.12g}"
        elif math.isinf(self.least):
            said = high or f"at most {self.most:.12g}"
        elif self.open:
            low = low or f"at least {self.least:.12g}"
            said = f"{low} and {high or f'at most {self.most:.12g}'}"
        else:
            said = f"from {self.least:.12g} to {self.most:.12g}"
        said += f", a multiple of {self.multiple}" if self.multiple else ""
        said += " or .inf" if self.infinite else ""
        return f"{said} ({self.note})" if self.note else said

    def advice(self, value: float) -> str:
        """What a refused value may have meant; a sentence, or nothing."""
        return ""


@dataclass(frozen=True, repr=False)
class Levels(Between):
    """A distance between pictures in steps of 8 bits, which other programs give in [0, 1] or, as
    the model takes them, in [-1, 1]."""

    note: str = "in /255 of [0, 1]"

    def advice(self, value: float) -> str:
        """See `Between`."""
        if not 0 < value < 1:
            return ""
        return (
            f" {value:g} of pictures in [0, 1] is {value * 255:.4g} here, of pictures in [-1, 1]"
            f" {value * 127.5:.4g}."
        )


Finite = Annotated[float, Between()]
Positive = Annotated[float, Between(0, open="least")]
NotNegative = Annotated[float, Between(0)]
AtLeastOne = Annotated[float, Between(1)]
Share = Annotated[float, Between(0, 1)]  # of a whole, or a probability
SomeShare = Annotated[float, Between(0, 1, open="least")]
InnerShare = Annotated[float, Between(0, 1, open="both")]
ProperShare = Annotated[float, Between(0, 1, open="most")]  # something has to be left
Count = Annotated[int, Between(1)]
CountOrNone = Annotated[int, Between(0)]  # 0 for none, or for a number found elsewhere
Rank = Annotated[int, Between(1, 4096)]  # of adapters; layers are no wider
Seed = Annotated[int, Between(0, 2**32 - 1)]
Budget = Annotated[float, Levels(1, 255)]
StepSize = Annotated[float, Levels(0, 255, open="least")]
Timestep = Annotated[int, Between(0, 999, note="of 1000")]
Bins = Annotated[int, Between(1, 32, note="a side; 8 fill CLIP's 75 words")]
Quality = Annotated[int, Between(1, 95)]  # of JPEG by Pillow, which gives up its table above
Chunks = Annotated[int, Between(1, 8, note="of 75 words")]
SamplingSteps = Annotated[int, Between(1, 1000)]


class Refused(NamedTuple):
    """A number outside its range."""

    where: str  # what follows the argument's name: "" or, in a list, its place as in ".2"
    value: float
    allowed: Between

    def said(self, name: str) -> str:
        """The sentence for a user who knows the argument as `name`."""
        value = f"{self.value:.12g}"
        advice = self.allowed.advice(self.value)
        return f"{name}{self.where} is {value}; it must be {self.allowed}.{advice}"


def refused(annotation: Any, value: Any, where: str = "") -> Iterator[Refused]:
    """The numbers in `value` that are outside the ranges in `annotation`; in lists and mappings,
    those of each entry."""
    kind, parts = get_origin(annotation), get_args(annotation)
    if kind is Annotated:
        if isinstance(value, Real) and not isinstance(value, bool):
            ranges = (part for part in parts[1:] if isinstance(part, Between))
            yield from (Refused(where, float(value), r) for r in ranges if float(value) not in r)
        else:
            yield from refused(parts[0], value, where)
    elif kind in (Union, UnionType):
        for part in parts:
            yield from refused(part, value, where)
    elif isinstance(value, Mapping) and len(parts) == 2:
        for key, item in value.items():
            yield from refused(parts[1], item, f"{where}.{key}")
    elif isinstance(value, list | tuple) and parts:
        each = parts if kind is tuple and parts[-1] is not ... else parts[:1] * len(value)
        for number, (part, item) in enumerate(zip(each, value, strict=False)):
            yield from refused(part, item, f"{where}.{number}")


def declared(call: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The arguments of a class or function by name, with annotations that are no strings where
    their names are known; with `**kwargs`, those of the class that it inherits from too."""
    try:
        found = inspect.signature(call, eval_str=True).parameters
    except NameError:
        found = inspect.signature(call).parameters
    passed_on = any(each.kind is each.VAR_KEYWORD for each in found.values())
    inherited = declared(call.__mro__[1]) if passed_on and inspect.isclass(call) else {}
    return inherited | dict(found)


def ranged(cls: C) -> C:
    """Makes a class's constructor raise ValueError for numbers outside the ranges it declares. For
    a dataclass it stands above `@dataclass`."""
    cls.__init__ = _checked(cls, cls.__init__)  # type: ignore[misc]
    return cls


class Ranged:
    """Classes whose constructors are `ranged`, and so are those of what inherits from them."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            ranged(cls)


def _checked(cls: type, init: Callable[..., None]) -> Callable[..., None]:
    arguments = functools.cache(lambda: declared(cls))  # when all names of the module are known

    @functools.wraps(init)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        # Lightning's save_hyperparameters walks up the frames that look like constructors.
        __class__ = Ranged  # noqa: F841
        given = dict(zip(arguments(), args, strict=False)) | kwargs
        for name, value in given.items():
            annotation = arguments()[name].annotation if name in arguments() else None
            for wrong in refused(annotation, value):
                raise ValueError(wrong.said(f"{type(self).__name__}.{name}"))
        init(self, *args, **kwargs)

    return __init__
