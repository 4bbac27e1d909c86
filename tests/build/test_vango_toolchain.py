"""Go as a tool: with what environment it runs, and what its words mean. A stand-in for `go` speaks where a real one
could not be made to say such things; everything that compiles is in test_vango.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from moorage.build.bench import Bench
from moorage.build.outcome import Blocked, Failed
from moorage.build.vango.toolchain import Go, cache_folder, find_go, go_environ, go_problem
from moorage.domain.errors import Problem
from tests.build.making import write_files

WORDS = [
    (
        ["go: go.mod requires go >= 1.99 (running go 1.26.8; GOTOOLCHAIN=local)"],
        "go-version-unsupported",
        "the module asks for go 1.99; this machine has go1.26.8",
    ),
    (
        ["go: golang.org/x/net@v0.99.0 requires go >= 1.40.1 (running go 1.26.8; GOTOOLCHAIN=local)"],
        "go-version-unsupported",
        "asks for go 1.40.1",
    ),
    (
        ["go: download go1.99 for linux/amd64: toolchain not available"],
        "go-version-unsupported",
        "asks for go 1.99",
    ),
    (
        [
            "go: downloading github.com/vango-go/vango v0.2.4",
            'app.go:1:2: github.com/vango-go/vango@v0.2.4: Get "https://p/x": dial tcp: lookup p: no such host',
        ],
        "go-modules-unavailable",
        "no such host",
    ),
    (["go: x@v1: module lookup disabled by GOPROXY=off"], "go-modules-unavailable", "GOPROXY=off"),
    (
        ["# example.com/app/cmd/server", "cmd/server/main.go:7:2: undefined: nothing", "cmd/server/main.go:9:1: more"],
        "go-build-failed",
        "cmd/server/main.go:7:2: undefined: nothing",
    ),
    (
        ["app/x.go:3:8: missing go.sum entry for module providing package a/b", "\tgo get a/b"],
        "go-build-failed",
        "missing go.sum entry",
    ),
    (["verifying a@v1: checksum mismatch", "SECURITY ERROR"], "go-build-failed", "SECURITY ERROR"),
    ([], "go-build-failed", "it said nothing"),
]


@pytest.mark.parametrize(("lines", "code", "detail"), WORDS)
def test_what_go_says_has_a_code(lines: list[str], code: str, detail: str) -> None:
    problem, is_the_source = go_problem(lines, "go build ./cmd/server", "go1.26.8")
    assert (problem.code, is_the_source) == (code, code != "go-modules-unavailable")
    assert detail in problem.detail
    assert problem.hint


def test_the_user_s_configuration_is_honoured(tmp_path: Path) -> None:
    """And what it leaves open is set: nothing is downloaded unasked, nothing above the source is seen."""
    home = {"HOME": str(tmp_path), "PATH": "/bin"}
    assert go_environ(home, tmp_path, tmp_path / "cache") == {
        "CGO_ENABLED": "0",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
    }
    assert go_environ(home | {"GOTOOLCHAIN": "auto"}, tmp_path, tmp_path)["GOTOOLCHAIN"] == "auto"
    (tmp_path / "go.work").write_text("go 1.26\n")
    assert "GOWORK" not in go_environ(home, tmp_path, tmp_path)


def test_without_a_home_modules_and_packages_are_kept_with_the_builds(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    for home in ({}, {"HOME": "/"}, {"HOME": str(tmp_path / "missing")}):
        own = go_environ(home, tmp_path, cache)
        assert (own["GOCACHE"], own["GOMODCACHE"]) == (str(cache / "go-build"), str(cache / "go-mod"))
    told = go_environ({"GOCACHE": "/a", "GOMODCACHE": "/b"}, tmp_path, cache)
    assert not {"GOCACHE", "GOMODCACHE"} & set(told)
    assert "GOMODCACHE" not in go_environ({"GOPATH": "/p"}, tmp_path, cache)


def test_what_is_made_once_is_kept_in_the_user_s_cache(tmp_path: Path) -> None:
    assert cache_folder({"HOME": str(tmp_path)}, Path("/b")) == tmp_path / ".cache" / "moorage"
    assert cache_folder({"HOME": str(tmp_path), "XDG_CACHE_HOME": "/x"}, Path("/b")) == Path("/x/moorage")
    assert cache_folder({"HOME": "/"}, Path("/b")) == Path("/b")


def speaking(tmp_path: Path, script: str, host: dict[str, str] | None = None) -> Go:
    """A toolchain whose program is a shell script."""
    write_files(tmp_path, {"bin/go": f"#!/bin/sh\n{script}\n", "work/source/go.mod": "module a\n"})
    (tmp_path / "bin" / "go").chmod(0o755)
    host = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "HOME": str(tmp_path), **(host or {})}
    bench = Bench(tmp_path / "work", host, {}, 30.0)
    program = find_go(bench.environ)
    assert program == str(tmp_path / "bin" / "go")
    return Go(program, bench, go_environ(bench.environ, bench.source, tmp_path / "cache"))


@pytest.mark.parametrize(
    ("wanted", "found", "fits"),
    [
        ("1.26", "go1.26.8", True),
        ("1.26", "go1.26", True),
        ("1.26.0", "go1.26", True),
        ("1.26.1", "go1.26", False),
        ("1.26.9", "go1.26.8", False),
        ("1.27", "go1.26.8", False),
        ("2.0", "go1.26.8", False),
        ("1.9", "go1.26.8", True),
        ("1.26rc1", "go1.26.0", True),
        ("1.26", "go1.26rc2", True),
        ("", "go1.2", True),
        ("1.26", "devel +abc", True),  # nobody can tell: Go itself will say
    ],
)
async def test_an_older_toolchain_is_told_before_anything_is_compiled(
    tmp_path: Path, wanted: str, found: str, fits: bool
) -> None:
    go = speaking(tmp_path, f'echo "{found}"; echo "-mod=mod"')
    if fits:
        await go.check(wanted)
        assert go.analysing()["GOFLAGS"] == "-mod=mod -trimpath"
        return
    with pytest.raises(Blocked) as ended:
        await go.check(wanted)
    problem: Problem = ended.value.problem
    assert (problem.code, problem.facts["wanted"]) == ("go-version-unsupported", wanted)
    assert wanted in problem.detail
    assert found in problem.detail


async def test_a_toolchain_that_may_be_exchanged_is_not_judged_by_us(tmp_path: Path) -> None:
    go = speaking(tmp_path, "echo go1.26.8", {"GOTOOLCHAIN": "auto"})
    await go.check("1.99")
    assert go.version == "go1.26.8"


async def test_a_network_that_is_away_is_no_fault_of_the_source(tmp_path: Path) -> None:
    go = speaking(tmp_path, "echo 'go: x: dial tcp 127.0.0.1:9: connect: connection refused' >&2; exit 1")
    with pytest.raises(Failed) as ended:
        await go.lines("list", "-deps", ".")
    assert ended.value.problem.code == "go-modules-unavailable"
    assert ended.value.log_tail


async def test_what_a_command_prints_is_not_mixed_with_what_it_complains_about(tmp_path: Path) -> None:
    go = speaking(tmp_path, "echo noise >&2; seq 1 3000; echo noise >&2")
    assert await go.lines("list") == [str(number) for number in range(1, 3001)]


def test_no_go_on_the_path(tmp_path: Path) -> None:
    assert find_go({"PATH": str(tmp_path)}) is None
    assert find_go({}) is None
