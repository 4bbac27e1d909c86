"""Our own reading against the framework's tool: what the tool writes for an odd app, we find current, and the hashes
that we compute are its own."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from moorage.build.bench import Bench
from moorage.build.tools import run_tool
from moorage.build.vango.framework import find_tool
from moorage.build.vango.sources import go_files, read_source, text_of
from moorage.build.vango.toolchain import Go, cache_folder, find_go, go_environ
from moorage.system.settings import inherited_environ
from moorage.vango.generated import BINDINGS_FILE, check_sources
from moorage.vango.settings import FRAMEWORK
from tests.build.making import write_files
from tests.build.test_vango import needs_go
from tests.vango.test_example import MATERIALISE

pytestmark = pytest.mark.servers

KEYS = """package keys

import vg "github.com/vango-go/vango"

// Ünïcödé in front of a key, and two values in one declaration.
var a, B = 1, vg.NewSessionKey[map[string]int]("tab\\tkey ünï")

var C = vg.NewSessionKey[string]("plain", vg.Default("x"))

func Use() int { return a }
"""
FORMS = """package forms

import (
	"github.com/vango-go/vango"
	su "github.com/vango-go/vango/setup"
)

type Page struct{}

type Fields struct {
	Name string `form:"name"`
}

func (p *Page) Show(props vango.NoProps) vango.Component {
	return vango.Setup(props, func(s vango.SetupCtx[vango.NoProps]) vango.RenderFn {
		form := su.Form(&s, Fields{})
		list := su.SharedSignal(&s, []string{"ö"})
		_ = form
		total := su.Memo(&s, func() int { return len(list.Get()) })
		return func() *vango.VNode { _ = total; return nil }
	})
}
"""


async def _tool(work: Path) -> Path:
    """The tool, made as a build makes it."""
    bench = Bench(work, inherited_environ(), {}, 600.0)
    program = find_go(bench.environ)
    assert program is not None
    go = Go(program, bench, go_environ(bench.environ, bench.source, work))
    await go.check("")
    await go.lines("list", "-deps", "./...")
    told = json.loads("\n".join(await go.lines("list", "-m", "-json", FRAMEWORK)))

    async def hear(_: str, __: str) -> None: ...

    version = told["Version"].removeprefix("v")
    return await find_tool(bench, go, version, Path(told["Dir"]), cache_folder(bench.environ, work), hear)


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The board with aliased imports, methods, forms and keys that no screen shows, its files written by the tool."""
    folder = tmp_path_factory.mktemp("odd") / "source"
    MATERIALISE.materialise("v1", folder)
    write_files(folder, {"app/keys/keys.go": KEYS, "app/forms/forms.go": FORMS})
    asyncio.run(_generate(folder))
    return folder


async def _generate(folder: Path) -> None:
    tool = await _tool(folder.parent)
    for words in (("state", "apply"), ("gen", "bindings")):
        ran = await run_tool((str(tool), *words), folder=folder, environ=os.environ, timeout_s=300.0)
        assert ran.succeeded, ran.lines


@needs_go
def test_what_the_tool_writes_is_current(odd: Path) -> None:
    source = read_source(odd)
    assert set(source.generated) == {f"app/{name}/{BINDINGS_FILE}" for name in ("board", "forms", "keys")}
    assert {e.label for e in source.state.entries} >= {"list", "plain", '"tab\\tkey \\u00fcn\\u00ef"'}
    files = {path.relative_to(odd).as_posix(): text_of(path) for path in go_files(odd)}
    assert check_sources(source.state, files, source.generated) is None


@needs_go
@pytest.mark.parametrize(
    ("file", "before", "after"),
    [
        ("app/keys/keys.go", "var C = ", "\nvar C = "),
        ("app/keys/keys.go", "= 1, vg.", "= 11, vg."),
        ("app/forms/forms.go", "su.Memo(", "su.Effect("),
        ("app/forms/forms.go", "\t\tform := ", "\n\t\tform := "),
    ],
)
def test_what_moves_is_seen(odd: Path, file: str, before: str, after: str) -> None:
    source = read_source(odd)
    files = {path.relative_to(odd).as_posix(): text_of(path) for path in go_files(odd)}
    assert before in files[file]
    files[file] = files[file].replace(before, after, 1)
    found = check_sources(source.state, files, source.generated)
    if after == "su.Effect(":  # one local primitive for another: only the tool sees it
        assert found is None
        return
    assert found is not None
    assert file in found.detail
