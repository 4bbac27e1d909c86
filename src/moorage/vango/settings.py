"""The app's own settings for the framework: `vango.json`, what `go.mod` says, and settings that the framework calls
unsafe. Pure: texts in, settings or the problem out.

Rules: unknown keys are left to the framework. Unsafe settings are constants in Go code, for the framework writes none
of them into a file: they are found where a source sets one to `true` outright; one that depends on a variable (the
scaffold's `VANGO_DEV`) is not, and the platform sets no such variable.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from moorage.domain.appkeys import is_inner_path
from moorage.domain.errors import Problem
from moorage.vango.schema import json_table

SETTINGS_FILE, GO_MOD = "vango.json", "go.mod"
FRAMEWORK = "github.com/vango-go/vango"
SETTINGS_MAX_BYTES = 256 << 10
STATIC_DIR, STATIC_PREFIX = "public", "/"

_MODULE = re.compile(r'^[ \t]*module[ \t]+"?([^\s"/][^\s"]*)"?', re.MULTILINE)
_GO = re.compile(r"^[ \t]*go[ \t]+(\d[\w.]*)", re.MULTILINE)
_REQUIRED = re.compile(rf'^[ \t]*(?:require[ \t]+)?"?{re.escape(FRAMEWORK)}"?[ \t]+(v[\w.+-]+)', re.MULTILINE)
# text, rune and comment of Go, in the order in which a scanner meets them; only comments and texts are blanked out
_GO_NO_CODE = re.compile(r'//[^\n]*|/\*.*?\*/|`[^`]*`|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'', re.DOTALL)


_NO_LINE_END = re.compile(r"[^\r\n]+")


class Severity(StrEnum):
    """How bad the framework calls a setting; a critical one blocks."""

    CRITICAL = "critical"
    HIGH = "high"


@dataclass(frozen=True, slots=True)
class Unsafe:
    """One unsafe setting: the framework's code for it, where it stands (`path:line`, or a key of vango.json)."""

    code: str
    severity: Severity
    where: str
    summary: str


@dataclass(frozen=True, slots=True)
class Settings:
    """What a host needs of vango.json: the Go module, the folder of static files (relative, POSIX) and the URL prefix
    that they are served below, build tags and linker flags, and the unsafe settings in the file itself."""

    module: str
    static_dir: str = STATIC_DIR
    static_prefix: str = STATIC_PREFIX
    tags: tuple[str, ...] = ()
    ldflags: str = ""
    unsafe: tuple[Unsafe, ...] = ()


@dataclass(frozen=True, slots=True)
class GoMod:
    """What `go.mod` says: the module, the Go version that it asks for, the required version of the framework; each
    empty where it says nothing."""

    module: str
    go: str
    framework: str


@dataclass(frozen=True, slots=True)
class _Rule:
    code: str
    severity: Severity
    pattern: re.Pattern[str]
    summary: str


def _is_true(field: str) -> str:
    return rf"\b{field}[ \t]*(?::|=)[ \t]*true\b"


_RULES = (
    _Rule(
        "dev_mode",
        Severity.CRITICAL,
        re.compile(_is_true("DevMode") + r"|\.WithDevMode\("),
        "development mode turns off the checks of origin, CSRF and cookies",
    ),
    _Rule(
        "unsafe_raw_html",
        Severity.CRITICAL,
        re.compile(_is_true("AllowUnsafeRawHTML(?:InProduction)?")),
        "raw HTML is not sanitised",
    ),
    _Rule(
        "insecure_promote",
        Severity.CRITICAL,
        re.compile(_is_true("AllowInsecurePromoteWithoutETag")),
        "an upload can be exchanged between check and use",
    ),
    _Rule(
        "trust_session_id",
        Severity.HIGH,
        re.compile(r"\bAuthResumePolicyTrustSessionID\b"),
        "whoever knows a session's id resumes it signed in",
    ),
    _Rule(
        "heuristic_event_payloads",
        Severity.HIGH,
        re.compile(_is_true("AllowHeuristicEventPayloadsInProduction")),
        "what hooks and islands send is checked by guesses alone",
    ),
    _Rule(
        "insecure_module_origins",
        Severity.HIGH,
        re.compile(_is_true("AllowInsecureModuleOriginsInProduction")),
        "scripts may come over plain HTTP",
    ),
)


def read_settings(content: bytes, go_mod: str) -> Settings | Problem:
    """The settings in a vango.json beside this go.mod, or its problem (`vango-settings-invalid`). Never raises."""
    if len(content) > SETTINGS_MAX_BYTES:
        return _invalid(f"{len(content)} bytes; at most {SETTINGS_MAX_BYTES} are read")
    table = json_table(content)
    if isinstance(table, str):
        return _invalid(f"it {table}")
    why = _module_fault(table, read_go_mod(go_mod).module) or _static_fault(table) or _build_fault(table)
    return _invalid(why) if why else _settings(table)


def _module_fault(table: Mapping[str, object], declared: str) -> str:
    """What is wrong with `module`, as the end of a sentence; empty if nothing."""
    module = table.get("module")
    if not isinstance(module, str) or not module.strip():
        return "it has no `module`"
    return "" if module.strip() == declared else f"its `module` is {module.strip()!r}, {GO_MOD} says {declared!r}"


def _static_fault(table: Mapping[str, object]) -> str:
    folder, prefix = _static(table)
    if not is_inner_path(folder) or not _plain(str(folder)):
        return f"`static.dir` is {folder!r}, which is no folder inside the source"
    if not isinstance(prefix, str) or not prefix.startswith("/"):
        return f"`static.prefix` is {prefix!r}, which does not begin with /"
    return ""


def _build_fault(table: Mapping[str, object]) -> str:
    build = _section(table, "build")
    flags, tags = build.get("ldflags") or "", build.get("tags") or []
    if not isinstance(tags, list) or not all(isinstance(tag, str) and tag.isprintable() for tag in tags):
        return "`build.tags` is no list of texts"
    return "" if isinstance(flags, str) and flags.isprintable() else "`build.ldflags` is no text"


def _settings(table: Mapping[str, object]) -> Settings:
    """The settings of a file that has no fault."""
    folder, prefix = _static(table)
    build = _section(table, "build")
    tags = build.get("tags") or []
    assert isinstance(tags, list)
    insecure = _section(table, "blob").get("allow_insecure_promote_without_etag") is True
    place = f"{SETTINGS_FILE}, blob.allow_insecure_promote_without_etag"
    return Settings(
        module=str(table["module"]).strip(),
        static_dir=_plain(str(folder)),
        static_prefix=str(prefix),
        tags=tuple(tags),
        ldflags=str(build.get("ldflags") or ""),
        unsafe=tuple(
            Unsafe(rule.code, rule.severity, place, rule.summary)
            for rule in _RULES
            if insecure and rule.code == "insecure_promote"
        ),
    )


def _static(table: Mapping[str, object]) -> tuple[object, object]:
    """Folder and prefix of static files as the file says them, defaults for what it leaves out."""
    static = _section(table, "static")
    return static.get("dir") or table.get("public") or STATIC_DIR, static.get("prefix") or STATIC_PREFIX


def read_go_mod(text: str) -> GoMod:
    """What a host needs of a go.mod. Only the go tool reads it fully; an odd file gives empty texts."""
    code = re.sub(r"//[^\n]*", "", text)
    found = (pattern.search(code) for pattern in (_MODULE, _GO, _REQUIRED))
    module, go, framework = (match.group(1) if match else "" for match in found)
    return GoMod(module, go, framework)


def without_comments(text: str) -> str:
    """A Go source with its comments and the content of its texts blanked out: each line has its length still."""
    return _GO_NO_CODE.sub(lambda match: _NO_LINE_END.sub(_blanks, match.group()), text)


def _blanks(match: re.Match[str]) -> str:
    return " " * len(match.group().encode("utf-8", "replace"))


def unsafe_in_source(path: str, text: str) -> tuple[Unsafe, ...]:
    """Unsafe settings that a Go file turns on outright."""
    code = without_comments(text)
    return tuple(
        Unsafe(rule.code, rule.severity, f"{path}:{code.count(chr(10), 0, found.start()) + 1}", rule.summary)
        for rule in _RULES
        for found in rule.pattern.finditer(code)
    )


def check_unsafe(found: Iterable[Unsafe]) -> Problem | None:
    """The problem of critical unsafe settings (`vango-unsafe-settings`): they block."""
    critical = [each for each in found if each.severity is Severity.CRITICAL]
    if not critical:
        return None
    shown = "; ".join(f"{each.where}: `{each.code}`, {each.summary}" for each in critical[:5])
    if len(critical) > 5:
        shown += f"; and {len(critical) - 5} more"
    hint = 'Remove it, or let it depend on a variable that production does not set (`os.Getenv("VANGO_DEV") == "1"`).'
    facts = {"unsafe": [unsafe_fact(each) for each in critical[:20]]}
    return Problem("vango-unsafe-settings", "The app is not safe in production", shown, hint, 422, facts)


def unsafe_fact(found: Unsafe) -> Mapping[str, str]:
    """An unsafe setting as a fact of an artifact."""
    return {"code": found.code, "severity": found.severity.value, "where": found.where}


def framework_missing() -> Problem:
    """The problem of a source with a vango.json whose go.mod does not require the framework."""
    detail = f"{GO_MOD} does not require {FRAMEWORK}"
    hint = f"Run `go get {FRAMEWORK}@v0.2.4`, or move {SETTINGS_FILE} away if this is no Vango app."
    return Problem("vango-framework-missing", "The app does not use the framework", detail, hint, 422)


def _section(table: Mapping[str, object], name: str) -> Mapping[str, object]:
    found = table.get(name)
    return found if isinstance(found, dict) else {}


def _plain(folder: str) -> str:
    return "/".join(part for part in folder.split("/") if part not in ("", "."))


def _invalid(why: str) -> Problem:
    hint = f"Correct {SETTINGS_FILE}; `vango doctor` names what it does not accept."
    return Problem("vango-settings-invalid", f"{SETTINGS_FILE} is not valid", f"{SETTINGS_FILE}: {why}", hint, 422)
