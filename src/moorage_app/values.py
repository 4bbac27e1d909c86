"""Which Python values a declared field may hold: JSON of the declared type, frozen.

Rules of this room: pure. A type is a `Shape` with a stable fingerprint; `keep` either gives the value as it will be
stored or raises at once. Kept lists and dicts are frozen, because a change in place could not be seen and stored.
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from .errors import ReadOnlyError, ValueRefusedError

NESTING_LEVELS: Final = 24  # within a field; the record adds a few of its own (contract.DEPTH_LEVELS)
INTEGER_MAX: Final = 2**53 - 1  # beyond it a browser's numbers lose digits

_SCALARS: Final = {str: "str", int: "int", float: "float", bool: "bool", type(None): "None"}


class FrozenList(list[Any]):
    """A kept list: read it like any list, assign a new one to change the field."""

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise ReadOnlyError("a kept list cannot be changed in place; assign a new one, e.g. field = [*field, item]")

    append = extend = insert = remove = pop = clear = sort = reverse = _refuse
    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return (list, (list(self),))


class FrozenDict(dict[str, Any]):
    """A kept dict: read it like any dict, assign a new one to change the field."""

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise ReadOnlyError(
            "a kept dict cannot be changed in place; assign a new one, e.g. field = {**field, key: value}"
        )

    update = setdefault = pop = popitem = clear = _refuse
    __setitem__ = __delitem__ = __ior__ = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return (dict, (dict(self),))


@dataclass(frozen=True, slots=True)
class Shape:
    """One declared type. `kind` is a scalar's name, json, list, dict or union."""

    kind: str
    parts: tuple[Shape, ...] = ()

    @property
    def fingerprint(self) -> str:
        """A text that changes exactly when the type does."""
        match self.kind:
            case "list":
                return f"list[{self.parts[0].fingerprint}]"
            case "dict":
                return f"dict[str, {self.parts[0].fingerprint}]"
            case "union":
                return " | ".join(part.fingerprint for part in self.parts)
            case _:
                return self.kind


def shape_of(annotation: Any) -> Shape:
    """The shape of a type annotation. Raises TypeError naming an annotation that cannot be kept."""
    if annotation in (Any, object):
        return Shape("json")
    if annotation in _SCALARS:
        return Shape(_SCALARS[annotation])
    if annotation is list:
        return Shape("list", (Shape("json"),))
    if annotation is dict:
        return Shape("dict", (Shape("json"),))
    return _shape_of_generic(annotation)


def _shape_of_generic(annotation: Any) -> Shape:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is list and len(arguments) == 1:
        return Shape("list", (shape_of(arguments[0]),))
    if origin is dict and len(arguments) == 2 and arguments[0] is str:
        return Shape("dict", (shape_of(arguments[1]),))
    if origin in (typing.Union, types.UnionType):
        parts = {part.fingerprint: part for part in map(shape_of, arguments)}
        return Shape("union", tuple(parts[name] for name in sorted(parts, key=lambda n: (n == "None", n))))
    raise TypeError(
        f"{getattr(annotation, '__name__', annotation)!s} cannot be kept; "
        "use str, int, float, bool, None, list[...], dict[str, ...], Any or a union of them"
    )


def keep(value: Any, shape: Shape, where: str) -> Any:
    """The value as it will be stored (frozen). Raises ValueRefusedError naming the place inside it."""
    return _keep(value, shape, where, 0)


def _keep(value: Any, shape: Shape, where: str, level: int) -> Any:
    if level > NESTING_LEVELS:
        raise ValueRefusedError(where, f"at most {NESTING_LEVELS} levels", "something deeper")
    match shape.kind:
        case "union":
            return _keep_union(value, shape, where, level)
        case "json":
            return _keep_json(value, where, level)
        case "list":
            if not isinstance(value, list | tuple):
                raise ValueRefusedError(where, shape.fingerprint, _found(value))
            part = shape.parts[0]
            return FrozenList(_keep(item, part, f"{where}[{i}]", level + 1) for i, item in enumerate(value))
        case "dict":
            if not isinstance(value, dict):
                raise ValueRefusedError(where, shape.fingerprint, _found(value))
            return _keep_dict(value, shape.parts[0], where, level)
        case kind:
            return _KEEPERS[kind](value, where)


def _keep_union(value: Any, shape: Shape, where: str, level: int) -> Any:
    for part in shape.parts:
        try:
            return _keep(value, part, where, level)
        except ValueRefusedError:
            continue
    raise ValueRefusedError(where, shape.fingerprint, _found(value))


def _keep_dict(value: dict[Any, Any], part: Shape, where: str, level: int) -> FrozenDict:
    return FrozenDict(
        (_keep_str(key, f"a key of {where}"), _keep(item, part, f"{where}.{key}", level + 1))
        for key, item in value.items()
    )


def _keep_json(value: Any, where: str, level: int) -> Any:
    for kind in ("None", "bool", "int", "float", "str"):
        if isinstance(value, _TYPES[kind]):
            return _KEEPERS[kind](value, where)
    if isinstance(value, list | tuple):
        return _keep(value, Shape("list", (Shape("json"),)), where, level)
    if isinstance(value, dict):
        return _keep(value, Shape("dict", (Shape("json"),)), where, level)
    raise ValueRefusedError(where, "JSON", _found(value))


def _keep_str(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise ValueRefusedError(where, "str", _found(value))
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ValueRefusedError(where, "text", "text with half a surrogate pair")
    return str(value)


def _keep_int(value: Any, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueRefusedError(where, "int", _found(value))
    if abs(value) > INTEGER_MAX:
        raise ValueRefusedError(where, "an int of at most 53 bits", "a larger one")
    return int(value)


def _keep_float(value: Any, where: str) -> float:
    if isinstance(value, int) and not isinstance(value, bool):
        return float(_keep_int(value, where))
    if not isinstance(value, float):
        raise ValueRefusedError(where, "float", _found(value))
    if not math.isfinite(value):
        raise ValueRefusedError(where, "a finite float", str(value))
    return float(value)


def _keep_bool(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise ValueRefusedError(where, "bool", _found(value))
    return value


def _keep_none(value: Any, where: str) -> None:
    if value is not None:
        raise ValueRefusedError(where, "None", _found(value))


_KEEPERS: Final[dict[str, Callable[[Any, str], Any]]] = {
    "str": _keep_str,
    "int": _keep_int,
    "float": _keep_float,
    "bool": _keep_bool,
    "None": _keep_none,
}
_TYPES: Final = {name: kind for kind, name in _SCALARS.items()}


def _found(value: Any) -> str:
    return f"a {type(value).__name__}" if value is not None else "None"
