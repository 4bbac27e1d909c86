"""Declaring state: `class Draft(SessionState, id="board:draft:v1")`, `class Notes(SharedState, id="board:notes:v1")`.

Rules of this room: what is declared with a type and a default persists; everything else does not, and that is said:
while the class is made (a warning), in `declaration.unpersisted`, and after a resume. A wrong declaration fails while
the module is imported; a wrong value fails where it is set.
"""

from __future__ import annotations

import inspect
import re
import types
import typing
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Literal, TypeVar

from .errors import DeclarationError, ReadOnlyError, UndeclaredFieldError, ValueRefusedError
from .values import Shape, keep, shape_of

Scope = Literal["session", "shared"]
T = TypeVar("T")

_STATE_ID: Final = re.compile(r"[a-z0-9][a-z0-9._-]*(:[a-z0-9][a-z0-9._-]*)*\Z")
STATE_ID_LETTERS: Final = 120


class NotPersistedWarning(UserWarning):
    """A state class has a plain attribute: it lives in the process only and is at its default after a resume."""


@dataclass(frozen=True, slots=True)
class Unpersisted:
    """Marker made by `unpersisted(...)`."""

    default: Any


def unpersisted(default: T) -> T:
    """Declares a per-session value that is meant to live in the process only: `cursor: int = unpersisted(0)`."""
    return typing.cast(T, Unpersisted(default))


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """One persisted field."""

    name: str
    shape: Shape
    default: Any


@dataclass(frozen=True, slots=True)
class Declaration:
    """What a state class keeps. `private` states are neither sent to nor set by the client."""

    id: str
    scope: Scope
    fields: Mapping[str, FieldSpec]
    unpersisted: Mapping[str, Any] = field(default_factory=dict)
    private: bool = False

    def defaults(self) -> dict[str, Any]:
        """Every persisted field at its default."""
        return {name: spec.default for name, spec in self.fields.items()}


class _KeptField:
    """Descriptor of a persisted field: reading gives the kept value, setting checks and reports the change."""

    def __init__(self, spec: FieldSpec) -> None:
        self.spec = spec

    def __get__(self, instance: State | None, owner: type[State]) -> Any:
        return self.spec.default if instance is None else instance._values[self.spec.name]

    def __set__(self, instance: State, value: Any) -> None:
        kept = keep(value, self.spec.shape, f"{type(instance).declaration.id}.{self.spec.name}")
        instance._put(self.spec.name, kept)


class _PlainField:
    """Descriptor of an unpersisted attribute: any Python value, per instance."""

    def __init__(self, name: str, default: Any) -> None:
        self.name, self.default = name, default

    def __get__(self, instance: State | None, owner: type[State]) -> Any:
        return self.default if instance is None else instance._plain.get(self.name, self.default)

    def __set__(self, instance: State, value: Any) -> None:
        instance._plain[self.name] = value


class State:
    """Common base of session and shared state; use `SessionState` or `SharedState`."""

    declaration: ClassVar[Declaration]
    _scope: ClassVar[Scope | None] = None

    def __init_subclass__(cls, *, id: str | None = None, private: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "_scope" in cls.__dict__:
            return
        if State not in {base for parent in cls.__bases__ for base in parent.__bases__}:
            raise DeclarationError(cls.__name__, "derive from SessionState or SharedState directly")
        cls.declaration = _declare(cls, id, private)
        for spec in cls.declaration.fields.values():
            setattr(cls, spec.name, _KeptField(spec))
        for name, default in cls.declaration.unpersisted.items():
            setattr(cls, name, _PlainField(name, default))
        _register(cls)

    def __init__(
        self,
        values: Mapping[str, Any] | None = None,
        *,
        changed: Callable[[str, str, Any], None] | None = None,
    ) -> None:
        """`values` were kept before (see `load_values`); `changed` is told (state id, field, value)."""
        object.__setattr__(self, "_values", {**type(self).declaration.defaults(), **(values or {})})
        object.__setattr__(self, "_plain", {})
        object.__setattr__(self, "_changed", changed)

    _values: dict[str, Any]
    _plain: dict[str, Any]
    _changed: Callable[[str, str, Any], None] | None

    def __setattr__(self, name: str, value: Any) -> None:
        declaration = type(self).declaration
        if name not in declaration.fields and name not in declaration.unpersisted:
            raise UndeclaredFieldError(declaration.id, name, tuple(declaration.fields))
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        raise ReadOnlyError(f"a field of {type(self).declaration.id} cannot be deleted; assign its default instead")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {type(self).declaration.id}>"  # values may be private: never in a log

    def _put(self, name: str, value: Any) -> None:
        if self._changed is None:
            own = type(self)
            raise ReadOnlyError(
                f"{own.declaration.id} is read only here; change shared state by `change({own.__name__}, function)`"
            )
        self._values[name] = value
        self._changed(type(self).declaration.id, name, value)

    def _dump(self) -> dict[str, Any]:
        return dict(self._values)


class SessionState(State):
    """State of one session: has one writer, persists as it changes, comes back when the session resumes."""

    _scope = "session"


class SharedState(State):
    """State of everyone: its value lives in the store, its changes are announced to all allocations."""

    _scope = "shared"


def load_values(declaration: Declaration, stored: Mapping[str, Any]) -> dict[str, Any]:
    """Stored values checked against the declaration; a missing field gets its default. Raises ValueRefusedError."""
    values = declaration.defaults()
    for name, spec in declaration.fields.items():
        if name in stored:
            values[name] = keep(stored[name], spec.shape, f"{declaration.id}.{name}")
    return values


# ---- the registry of declared classes --------------------------------------------------------------------------
_registered: dict[str, type[State]] = {}


def declared_states() -> tuple[type[State], ...]:
    """Every state class declared in this process, ordered by id."""
    return tuple(_registered[key] for key in sorted(_registered))


def _register(cls: type[State]) -> None:
    known = _registered.get(cls.declaration.id)
    if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
        raise DeclarationError(cls.__name__, f"the id {cls.declaration.id!r} is taken by {known.__qualname__}")
    _registered[cls.declaration.id] = cls


# ---- reading a class body ---------------------------------------------------------------------------------------
def _declare(cls: type[State], state_id: str | None, private: bool) -> Declaration:
    if cls._scope is None:
        raise DeclarationError(cls.__name__, "derive from SessionState or SharedState")
    if state_id is None:
        raise DeclarationError(cls.__name__, f'give it an id: class {cls.__name__}(..., id="app:name:v1")')
    if len(state_id) > STATE_ID_LETTERS or not _STATE_ID.match(state_id):
        raise DeclarationError(cls.__name__, f"id {state_id!r} is not of the form app:name:v1 in lower case")
    hints = _hints(cls)
    fields: dict[str, FieldSpec] = {}
    plain: dict[str, Any] = {}
    for name, default in _attributes(cls, hints):
        if isinstance(default, Unpersisted):
            plain[name] = default.default
        elif name in hints:
            fields[name] = _field(cls, name, hints[name], default)
        else:
            plain[name] = default
            _warn_unpersisted(cls, name)
    if not fields:
        raise DeclarationError(cls.__name__, "it declares no field; declare one as `name: type = default`")
    return Declaration(state_id, cls._scope, types.MappingProxyType(fields), types.MappingProxyType(plain), private)


def _hints(cls: type[State]) -> dict[str, Any]:
    """The annotations of the class's own body, without ClassVar and private names."""
    try:
        own = inspect.get_annotations(cls, eval_str=True)
    except (NameError, SyntaxError, TypeError) as error:
        raise DeclarationError(cls.__name__, f"an annotation cannot be resolved: {error}") from None
    return {name: hint for name, hint in own.items() if not name.startswith("_") and not _is_class_var(hint)}


def _attributes(cls: type[State], hints: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    own = set(inspect.get_annotations(cls))
    body = {name: value for name, value in vars(cls).items() if not name.startswith("_") and name != "declaration"}
    for name in hints:
        if name not in body:
            raise DeclarationError(cls.__name__, f"{name} has no default; write `{name}: type = default`")
    for name, value in body.items():
        behaviour = callable(value) or isinstance(value, property | classmethod | staticmethod)
        if name in hints or not (behaviour or name in own):  # annotated but no hint: a ClassVar
            yield name, value


def _is_class_var(hint: Any) -> bool:
    return hint is ClassVar or typing.get_origin(hint) is ClassVar


def _field(cls: type[State], name: str, annotation: Any, default: Any) -> FieldSpec:
    where = f"{cls.__name__}.{name}"
    if hasattr(State, name):
        raise DeclarationError(cls.__name__, f"{name} is a name of the SDK; choose another")
    try:
        shape = shape_of(annotation)
        return FieldSpec(name, shape, keep(default, shape, where))
    except ValueRefusedError as error:
        raise DeclarationError(cls.__name__, f"the default does not fit: {error}") from None
    except TypeError as error:
        raise DeclarationError(cls.__name__, f"{name}: {error}") from None


def _warn_unpersisted(cls: type[State], name: str) -> None:
    warnings.warn(
        f"{cls.__name__}.{name} has no type, so it is not persisted: after a resume it is at its default. "
        f"Write `{name}: <type> = ...` to keep it or `{name} = unpersisted(...)` to say you mean it.",
        NotPersistedWarning,
        stacklevel=5,
    )
