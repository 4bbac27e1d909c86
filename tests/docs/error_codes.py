"""Every stable code that the sources can produce, found by reading their syntax trees.

Rules: a code is a constant that reaches the `code` of a `Problem`, directly or through functions and classes that pass
a parameter on (followed to a fixed point). A site whose code is computed must stand in `COMPUTED` with the codes that
it can give, so that a new one cannot slip by. Reasons of allocations and the edge's own answers are found in the
same way; the SDK's errors carry their code as a class attribute.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from moorage.cli.call import Exit
from moorage.domain.operation import MACHINES, SUCCESS
from moorage_app.contract import FreshReason

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "src"
RUNNER = "moorage/runner/"
SDK = "moorage_app/"
_CODE_IN_LUA = re.compile(r'"code":"([a-z-]+)"')


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a code enters: position and name of the parameter of a callable, and the folder in which it is meant."""

    position: int
    parameter: str
    folder: str = ""


ENTRIES: Mapping[str, Entry] = {
    "Problem": Entry(0, "code"),
    "Answer": Entry(0, "code", "moorage/edge/"),
    "_End": Entry(1, "reason", RUNNER),
    "Decline": Entry(2, "reason", RUNNER),
    "_over": Entry(1, "reason", RUNNER),
    "observe": Entry(3, "reason", "moorage/control/"),
}

# Sites whose code is computed: (file, source text of the code) to the codes that they can give beyond codes that are
# only passed on and found where they are made.
COMPUTED: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("moorage/control/builds.py", "report.code or 'build-failed'"): ("build-failed",),
    ("moorage/control/api/problems.py", "code"): ("endpoint-unknown", "method-not-allowed", "http-error"),
    ("moorage/control/operations/handover.py", "str(known.get('code'))"): (),  # the hand-over's own
    ("moorage/control/operations/allocate.py", "f'allocation-{reason}'"): ("allocation-ready-timeout",),
    ("moorage/control/operations/allocate.py", "reason"): (),  # artifact-altered, artifact-missing
    ("moorage/control/api/agents.py", "seen.reason"): (),  # the runner's own
    ("moorage/cli/follow.py", "f\"operation-{operation.state.replace('_', '-')}\""): (),  # see `operation_codes`
    ("moorage/cli/verbs/promote.py", "str(document['code'])"): (),  # the server's
    ("moorage/cli/verbs/promote.py", "found.code"): (),
    ("moorage/client/http.py", "str(body['code'])"): (),
    ("moorage/domain/appfile.py", "problem.code"): (),  # name-invalid, name-contains-topology
    ("moorage/runner/allocation.py", "launch.code"): (),  # artifact-altered, artifact-missing and the runner's own
    ("moorage/runner/allocation.py", "instance.code"): (),
    ("moorage/runner/allocation.py", "end.reason"): (),
}


@dataclass(frozen=True, slots=True)
class Site:
    """A place in the sources where a code is given: its file below `src`, and the source text of the code."""

    path: str
    line: int
    text: str


@dataclass(frozen=True, slots=True)
class Given:
    """What the sources give: constants (code to sites) and computed sites."""

    constants: Mapping[str, tuple[Site, ...]]
    computed: tuple[Site, ...]


def _name(function: ast.expr) -> str:
    if isinstance(function, ast.Name):
        return function.id
    return function.attr if isinstance(function, ast.Attribute) else ""


@cache
def _modules() -> Mapping[str, ast.Module]:
    found = {str(p.relative_to(SOURCES)): p for p in sorted(SOURCES.rglob("*.py"))}
    return {path: ast.parse(place.read_text(encoding="utf-8")) for path, place in found.items()}


@dataclass(frozen=True, slots=True)
class Callable:
    """A function or class with the calls in it: `parameters` are without self; a module's own calls have no name."""

    path: str
    name: str
    parameters: tuple[str, ...]
    node: ast.AST
    calls: tuple[ast.Call, ...]


@cache
def _callables() -> tuple[Callable, ...]:
    """Every function, every class (called by its name) and every module's top-level assignments."""
    found = []
    for path, tree in _modules().items():
        top = ast.Module(body=[s for s in tree.body if isinstance(s, ast.Assign)], type_ignores=[])
        found.append(Callable(path, "", (), top, _calls(top)))
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                inits = [part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"]
                found += [Callable(path, node.name, _parameters(part), part, _calls(part)) for part in inits]
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name != "__init__":
                found.append(Callable(path, node.name, _parameters(node), node, _calls(node)))
    return tuple(found)


def _parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> tuple[str, ...]:
    names = tuple(a.arg for a in (*node.args.posonlyargs, *node.args.args))
    return names[1:] if names[:1] in (("self",), ("cls",)) else names


def _calls(node: ast.AST) -> tuple[ast.Call, ...]:
    return tuple(found for found in ast.walk(node) if isinstance(found, ast.Call))


def _code_of(call: ast.Call, path: str, known: Mapping[str, Entry]) -> ast.expr | None:
    """The expression that a call gives as a code, None when the call gives none."""
    entry = known.get(_name(call.func))
    if entry is None or not path.startswith(entry.folder):
        return None
    for keyword in call.keywords:
        if keyword.arg == entry.parameter:
            return keyword.value
    return call.args[entry.position] if len(call.args) > entry.position else None


@cache
def _entries() -> Mapping[str, Entry]:
    """The callables that take a code, with those that pass one of their parameters on as a code."""
    known = dict(ENTRIES)
    while True:
        before = len(known)
        for each in _callables():
            for call in each.calls:
                code = _code_of(call, each.path, known)
                if isinstance(code, ast.Name) and code.id in each.parameters and each.name not in known:
                    # A private function is meant in its own file; a class or a public function everywhere.
                    folder = each.path if each.name.startswith("_") else ""
                    known[each.name] = Entry(each.parameters.index(code.id), code.id, folder)
        if len(known) == before:
            return known


def _values(code: ast.expr, node: ast.AST) -> list[ast.expr]:
    """The expressions behind a code: both arms of a choice, and what a local name was given."""
    if isinstance(code, ast.IfExp):
        return _values(code.body, node) + _values(code.orelse, node)
    if isinstance(code, ast.Name):
        given = [a.value for a in ast.walk(node) if isinstance(a, ast.Assign) and _name(a.targets[0]) == code.id]
        if given and all(isinstance(v, ast.Constant | ast.IfExp) for v in given):
            return [value for v in given for value in _values(v, node)]
    return [code]


def _given_by(each: Callable) -> Iterator[tuple[ast.expr, Site]]:
    """What a callable gives as codes, a parameter that it only passes on left out."""
    for call in each.calls:
        code = _code_of(call, each.path, _entries())
        if code is None or (isinstance(code, ast.Name) and code.id in each.parameters):
            continue
        for value in _values(code, each.node):
            yield value, Site(each.path, call.lineno, ast.unparse(value))


@cache
def given(folder: str = "", but: str = "") -> Given:
    """Every code that files whose path begins with `folder` (and not with `but`) give."""
    constants: dict[str, list[Site]] = {}
    computed: dict[Site, None] = {}
    for each in _callables():
        if not each.path.startswith(folder) or (but and each.path.startswith(but)):
            continue
        for value, site in _given_by(each):
            if isinstance(value, ast.Constant):
                constants.setdefault(str(value.value), []).append(site)
            else:
                computed[site] = None
    constants.pop("", None)  # an end without a reason needs no page
    return Given({code: tuple(sites) for code, sites in constants.items()}, tuple(computed))


@cache
def platform_codes() -> frozenset[str]:
    """The codes of problems and of the edge's answers, those of computed sites included."""
    computed = {code for codes in COMPUTED.values() for code in codes}
    written = frozenset(given("moorage/", but=RUNNER).constants) - _lost_reasons()
    return written | computed | operation_codes() | proxy_codes()


def proxy_codes() -> frozenset[str]:
    """What the proxy's own scripts answer."""
    return frozenset(c for place in SOURCES.rglob("*.lua") for c in _CODE_IN_LUA.findall(place.read_text()))


def _lost_reasons() -> frozenset[str]:
    """Reasons that the control plane itself gives an allocation."""
    found = given("moorage/control/").constants
    agents = "moorage/control/api/agents.py"
    return frozenset(c for c, sites in found.items() if all(s.path == agents for s in sites))


def allocation_reasons() -> frozenset[str]:
    """Why an allocation ended or never started, as the runner and the control plane say it."""
    return frozenset(given(RUNNER).constants) | _lost_reasons()


def operation_codes() -> frozenset[str]:
    """What the command line says of an operation that ended without success and without a problem of its own."""
    last = {state for machine in MACHINES.values() for state, following in machine.items() if not following}
    return frozenset(f"operation-{state.replace('_', '-')}" for state in last - SUCCESS)


@cache
def sdk_codes() -> frozenset[str]:
    """The codes of the SDK's errors, and those that it sends to a page by itself."""
    found: set[str] = set()
    for path, tree in _modules().items():
        if not path.startswith(SDK):
            continue
        for node in ast.walk(tree):
            match node:
                case ast.ClassDef(name=name, body=body) if name != "MoorageAppError":
                    found.update(_class_code(body))
                case ast.Call(func=ast.Name(id="Refused"), args=[ast.Constant(value=str(code)), *_]):
                    found.add(code)
                case ast.Dict(keys=keys, values=values):
                    found.update(_dict_code(keys, values))
    return frozenset(found)


def _class_code(body: list[ast.stmt]) -> Iterator[str]:
    for statement in body:
        match statement:
            case ast.Assign(targets=[ast.Name(id="code")], value=ast.Constant(value=str(code))):
                yield code


def _dict_code(keys: list[ast.expr | None], values: list[ast.expr]) -> Iterator[str]:
    for key, value in zip(keys, values, strict=True):
        match key, value:
            case ast.Constant(value="code"), ast.Constant(value=str(code)):
                yield code


@cache
def session_reasons() -> frozenset[str]:
    """Why a session has its outcome, as accounts say it: `(Outcome.X, "reason")`, and why it was started fresh."""
    found = {str(reason).replace("_", "-") for reason in FreshReason}
    for path, tree in _modules().items():
        if not path.startswith(("moorage/sessions/", "moorage/control/", "moorage/domain/session")):
            continue
        for node in ast.walk(tree):
            match node:
                case ast.Tuple(elts=[ast.Attribute(value=ast.Name(id="Outcome")), ast.Constant(value=str(reason))]):
                    found.add(reason)
                case ast.Call(func=ast.Name(id="Fate"), args=[_, _, ast.Constant(value=str(reason)), *_]):
                    found.add(reason)
                case ast.FunctionDef(name="open_account", args=ast.arguments(kw_defaults=defaults)):
                    found.update(d.value for d in defaults if isinstance(d, ast.Constant) and isinstance(d.value, str))
    return frozenset(found - {""})


def exit_codes() -> frozenset[int]:
    """The exit codes of the command line."""
    return frozenset(int(code) for code in Exit)


@cache
def page_names() -> frozenset[str]:
    """The page that each code needs."""
    return platform_codes() | sdk_codes() | frozenset(f"allocation-{reason}" for reason in allocation_reasons())
