"""vango.json and go.mod as a host reads them, and what the framework calls unsafe."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.domain.errors import Problem
from moorage.vango.settings import (
    SETTINGS_MAX_BYTES,
    GoMod,
    Settings,
    Severity,
    check_unsafe,
    read_go_mod,
    read_settings,
    unsafe_in_source,
    without_comments,
)
from tests.vango.board import BOARD

GO_MOD = "module example.com/board\n\ngo 1.26\n\nrequire github.com/vango-go/vango v0.2.4\n"
PLAIN: dict[str, Any] = {"module": "example.com/board"}


def read(**more: Any) -> Settings | Problem:
    return read_settings(json.dumps(PLAIN | more).encode(), GO_MOD)


def test_the_board_has_valid_settings() -> None:
    found = read_settings((BOARD / "vango.json").read_bytes(), (BOARD / "go.mod").read_text())
    assert found == Settings("example.com/moorage/vango-board")
    go_mod = read_go_mod((BOARD / "go.mod").read_text())
    assert (go_mod.module, go_mod.framework) == ("example.com/moorage/vango-board", "v0.2.4")
    assert go_mod.go


def test_what_is_said_counts_and_what_is_unknown_is_left_alone() -> None:
    found = read(
        static={"dir": "./web/static/", "prefix": "/assets"},
        build={"tags": ["sqlite", "fts5"], "ldflags": "-X main.version=3"},
        later={"x": 1},
    )
    assert found == Settings("example.com/board", "web/static", "/assets", ("sqlite", "fts5"), "-X main.version=3")
    assert read(public="site") == Settings("example.com/board", "site")


INVALID: dict[str, dict[str, Any]] = {
    "no module": {"module": ""},
    "another module": {"module": "example.com/other"},
    "a number as module": {"module": 3},
    "static folder outside": {"static": {"dir": "../secrets"}},
    "static folder absolute": {"static": {"dir": "/etc"}},
    "the source itself as static folder": {"static": {"dir": "."}},
    "a list as static folder": {"static": {"dir": ["public"]}},
    "a prefix without a slash": {"static": {"prefix": "assets"}},
    "tags as a text": {"build": {"tags": "a,b"}},
    "flags as a list": {"build": {"ldflags": ["-s"]}},
    "a line break in a flag": {"build": {"ldflags": "-s\n-w"}},
}


@pytest.mark.parametrize("what", INVALID)
def test_invalid_settings_say_why(what: str) -> None:
    found = read(**INVALID[what])
    assert isinstance(found, Problem)
    assert (found.code, found.status) == ("vango-settings-invalid", 422)
    assert found.detail.startswith("vango.json: ")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"module": "example.com/board",}', b"{}"])
def test_what_is_no_settings_file_is_invalid(content: bytes) -> None:
    found = read_settings(content, GO_MOD)
    assert isinstance(found, Problem)
    assert found.code == "vango-settings-invalid"
    assert isinstance(read_settings(b" " * (SETTINGS_MAX_BYTES + 1), GO_MOD), Problem)


GO_MODS = [
    ('module "quoted.example/app" // said\ngo 1.26.1\n', GoMod("quoted.example/app", "1.26.1", "")),
    (
        "go 1.26\nmodule a/b\nrequire (\n\tgithub.com/vango-go/vango v0.3.0-rc.1 // indirect\n)\n",
        GoMod("a/b", "1.26", "v0.3.0-rc.1"),
    ),
    ("// module x\nmodule y\n// require github.com/vango-go/vango v1\n", GoMod("y", "", "")),
    ("module y\nrequire github.com/vango-go/vango-s3 v0.1.0\n", GoMod("y", "", "")),
    ("", GoMod("", "", "")),
    ("\0\xff", GoMod("", "", "")),
]


@pytest.mark.parametrize(("text", "found"), GO_MODS)
def test_go_mod(text: str, found: GoMod) -> None:
    assert read_go_mod(text) == found


UNSAFE = [
    ("cfg := vango.Config{DevMode: true}", "dev_mode", Severity.CRITICAL),
    ("cfg.DevMode = true", "dev_mode", Severity.CRITICAL),
    ("server.DefaultServerConfig().WithDevMode()", "dev_mode", Severity.CRITICAL),
    ("x := vango.URLPolicy{AllowUnsafeRawHTML:  true}", "unsafe_raw_html", Severity.CRITICAL),
    ("AllowUnsafeRawHTMLInProduction: true,", "unsafe_raw_html", Severity.CRITICAL),
    ("blob.Config{AllowInsecurePromoteWithoutETag: true}", "insecure_promote", Severity.CRITICAL),
    ("AuthResumePolicy: vango.AuthResumePolicyTrustSessionID,", "trust_session_id", Severity.HIGH),
    ("AllowHeuristicEventPayloadsInProduction: true", "heuristic_event_payloads", Severity.HIGH),
    ("AllowInsecureModuleOriginsInProduction = true", "insecure_module_origins", Severity.HIGH),
]


@pytest.mark.parametrize(("code", "name", "severity"), UNSAFE)
def test_what_is_turned_on_outright_is_found_with_its_place(code: str, name: str, severity: Severity) -> None:
    found = unsafe_in_source("cmd/server/main.go", f"package main\n\n{code}\n")
    assert [(each.code, each.severity, each.where) for each in found] == [(name, severity, "cmd/server/main.go:3")]
    problem = check_unsafe(found)
    assert (problem is not None) is (severity is Severity.CRITICAL)
    if problem is not None:
        assert problem.code == "vango-unsafe-settings"
        assert "cmd/server/main.go:3" in problem.detail


HARMLESS = [
    'DevMode: os.Getenv("VANGO_DEV") == "1"',
    "DevMode: devMode",
    "DevMode: false",
    "// DevMode: true",
    "/* DevMode: true */",
    '"DevMode: true"',
    "`DevMode:\n true`",
    "isDevMode: true",
    "DevMode: trueish",
    'x := \'"\'; y := "DevMode: true"',
]


@pytest.mark.parametrize("code", HARMLESS)
def test_what_depends_or_is_no_code_is_not(code: str) -> None:
    assert unsafe_in_source("main.go", code) == ()


def test_a_setting_in_vango_json_counts_too() -> None:
    found = read(blob={"allow_insecure_promote_without_etag": True})
    assert isinstance(found, Settings)
    problem = check_unsafe(found.unsafe)
    assert problem is not None
    assert "vango.json" in problem.detail


def test_many_unsafe_settings_stay_readable() -> None:
    problem = check_unsafe(unsafe_in_source("main.go", "DevMode: true\n" * 1000))
    assert problem is not None
    assert "and 995 more" in problem.detail
    assert len(str(problem.facts)) < 5000


@given(st.text(max_size=120))
def test_blanking_keeps_every_line_and_its_length(text: str) -> None:
    before, after = text.split("\n"), without_comments(text).split("\n")
    assert len(before) == len(after)
    assert [len(line.encode()) for line in before] == [len(line.encode()) for line in after]


@given(st.binary(max_size=200), st.text(max_size=100))
def test_whatever_the_files_hold_nothing_is_raised(content: bytes, go_mod: str) -> None:
    assert isinstance(read_settings(content, go_mod), Problem)
