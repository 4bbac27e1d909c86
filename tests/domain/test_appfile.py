"""The app file: what is accepted, and that each broken rule names file, line, what was found and what was expected."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.domain.appfile import AppFile, Build, Promotion, Static, Vango, missing_appfile, parse_appfile
from moorage.domain.appkeys import IMPACTS, KEYS, MODES
from moorage.domain.artifact import Migration, Process
from moorage.domain.errors import Problem
from moorage.domain.impact import DataImpact
from moorage.system.clock import monotonic_s

FULL = """
name = "board"

[process]
command = "python -m uvicorn board:app --host $HOST --port $PORT"
health = "/healthz"
ready_timeout_s = 20
stop_grace_s = 2.5

[build]
command = "make && make check"
output = "out"
exclude = ["docs/", "*.psd"]

[state]
module = "board:app"

[[migration]]
name = "0001_notes"
impact = "additive"

[[migration]]
name = "0002_split"
impact = "destructive"

[promotion]
mode = "drain"
bake_s = 3
drain_deadline_s = 60

[store]
enabled = false

[vango]
main = "./cmd/web"
resume_cure = true
"""


def problem_of(text: bytes | str) -> Problem:
    answer = parse_appfile(text)
    assert isinstance(answer, Problem), answer
    return answer


def test_every_key_reaches_the_app_file() -> None:
    assert parse_appfile(FULL) == AppFile(
        name="board",
        process=Process("python -m uvicorn board:app --host $HOST --port $PORT", "/healthz", 20.0, 2.5),
        build=Build("make && make check", "out", ("docs/", "*.psd")),
        state_module="board:app",
        migrations=(Migration("0001_notes", "additive"), Migration("0002_split", "destructive")),
        promotion=Promotion("drain", 3.0, 60.0),
        store=False,
        vango=Vango("./cmd/web", True),
    )


def test_the_least_that_is_needed() -> None:
    found = parse_appfile('name = "board"\nprocess.command = "./serve $PORT"\n')
    assert found == AppFile("board", Process("./serve $PORT", "/", 60.0, 10.0))


def test_a_vango_app_has_a_usual_command_and_health() -> None:
    answer = parse_appfile('name = "board"\n[vango]\n')
    assert isinstance(answer, AppFile)
    assert (answer.process.command, answer.process.health) == ("./server", "/_vango/health/ready")
    assert answer.vango == Vango("", False)
    own = parse_appfile('name = "board"\n[process]\ncommand = "./web -v"\nhealth = "/up"\n[vango]\n')
    assert isinstance(own, AppFile)
    assert (own.process.command, own.process.health) == ("./web -v", "/up")
    plain = parse_appfile('name = "board"\n[process]\ncommand = "./server"\n')
    assert isinstance(plain, AppFile)
    assert (plain.process.health, plain.vango) == ("/", None)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[vango]\nmain = '/cmd/server'", "vango.main"),
        ("[vango]\nmain = '../server'", "vango.main"),
        ("[vango]\nmain = ''", "vango.main"),
        ("[vango]\nresume_cure = 'yes'", "vango.resume_cure"),
        ("[vango]\nresume = true", "vango.resume"),
        ("[static]\n[vango]", "vango"),
    ],
)
def test_a_vango_section_keeps_its_rules(text: str, key: str) -> None:
    found = problem_of(f'name = "board"\n{text}\n')
    assert (found.code, found.facts["key"]) == ("appfile-invalid", key)


def test_a_static_site_needs_no_command() -> None:
    found = parse_appfile('name = "site"\n[static]\nroot = "public"\nspa = true\n')
    assert isinstance(found, AppFile)
    assert (found.static, found.process.command) == (Static("public", True), "")


RUNS = 'name = "board"\n[process]\ncommand = "./serve"\n'

# (text, line, key, what must be named as found, what must be named as expected)
BAD = [
    ("", 1, "name", "no name", '`name = "..."`'),
    ('name = "board"\n', 1, "", "no command", "[process] command"),
    ('name = "board"\n[process]\nhealth = "/"\n', 2, "process", "no command", "[process] command"),
    ("name = 3\n" + RUNS[15:], 1, "name", "3", "DNS label"),
    (RUNS + 'helth = "/"\n', 4, "process.helth", "did you mean `health`?", "command, health"),
    (RUNS + 'health = "healthz"\n', 4, "process.health", '"healthz"', 'begins with "/"'),
    (RUNS + "ready_timeout_s = true\n", 4, "process.ready_timeout_s", "true", "seconds between"),
    (RUNS + "ready_timeout_s = nan\n", 4, "process.ready_timeout_s", "NaN", "seconds between"),
    (RUNS + "stop_grace_s = -1\n", 4, "process.stop_grace_s", "-1", "seconds between"),
    (RUNS + f"stop_grace_s = {'9' * 400}\n", 4, "process.stop_grace_s", "999", "seconds between"),
    (RUNS + "[proccess]\n", 4, "proccess", "did you mean `process`?", "[process]"),
    (RUNS + "\n\n[build]\noutput = '../x'\ncommand = 'make'", 7, "build.output", "../x", "inside the source"),
    (RUNS + "[build]\noutput = 'x'\n", 5, "build.output", '"x"', "`command`"),
    (RUNS + "[build]\ncommand = ''\n", 5, "build.command", '""', "shell command"),
    (RUNS + "[build]\nexclude = 'docs'\n", 5, "build.exclude", '"docs"', "a list"),
    (RUNS + "[static]\n", 3, "process.command", "./serve", "no command beside `[static]`"),
    (RUNS + "[state]\nmodule = 'board'\n", 5, "state.module", '"board"', "module:attribute"),
    (RUNS + "[state]\nschema = 's.json'\nmodule = 'a:b'\n", 5, "state.schema", "s.json", "not both"),
    (RUNS + "[migration]\nname = 'a'\nimpact = 'none'\n", 4, "migration", "a table", "[[migration]]"),
    (RUNS + "[[process]]\n", 4, "process", "", ""),
    (RUNS + "[[migration]]\nname = 'a'\n", 4, "migration[1]", "nothing", "`impact = ...`"),
    (
        RUNS + "[[migration]]\nname='a'\nimpact='none'\n[[migration]]\nname='b'\nimpact='bad'\n",
        9,
        "migration[2].impact",
        '"bad"',
        "additive",
    ),
    (
        RUNS + "[[migration]]\nname='a'\nimpact='none'\n[[migration]]\nname='a'\nimpact='none'\n",
        8,
        "migration[2].name",
        '"a"',
        "no other",
    ),
    (RUNS + "[promotion]\nmode = 'fast'\n", 5, "promotion.mode", '"fast"', '"handover"'),
    (RUNS + "[store]\nenabled = 'yes'\n", 5, "store.enabled", '"yes"', "true or false"),
    (RUNS + "store = 3\n", 4, "process.store", "unknown key", "command, health"),
    ('name = "b"\nstore = 3\n[process]\ncommand = "x"', 2, "store", "3", "[store]"),
    (RUNS + "health = \n", 4, "", "Invalid value", "valid TOML"),
    ("a.b = 1\na.b.c = 2\n", 2, "", "", "valid TOML"),
    (
        'name = "b"\nprocess.command = """\n[state]\nx = 1 | y\n"""\nprocess.health = 3\n',
        2,
        "process.command",
        "|",
        "shell operators",
    ),
    (
        'name = "b"\nprocess.command = """\nserve\n[state]\nx = 1 y\n"""\nprocess.health = 3\n',
        7,
        "process.health",
        "3",
        '"/"',
    ),
]


@pytest.mark.parametrize(("text", "line", "key", "found", "expected"), BAD)
def test_a_broken_rule_is_named_with_its_place(text: str, line: int, key: str, found: str, expected: str) -> None:
    problem = problem_of(text)
    assert problem.code == "appfile-invalid"
    assert problem.status == 422
    assert problem.facts["file"] == "moorage.toml"
    if text.endswith("[[process]]\n"):  # two definitions of one table: the TOML reader itself refuses
        assert problem.facts["expected"] == "valid TOML"
        return
    assert (problem.facts["line"], problem.facts["key"]) == (line, key)
    assert found in str(problem.facts["found"])
    assert expected in str(problem.facts["expected"])
    assert f"line {line}" in problem.detail


@pytest.mark.parametrize("command", ["FOO=1 serve", "a && b", "a | b", "a > b", "", "   ", "serve 'open", '""'])
def test_a_command_that_needs_a_shell_is_refused(command: str) -> None:
    problem = problem_of(f"name = 'b'\n[process]\ncommand = '''{command}'''\n")
    assert (problem.code, problem.facts["key"]) == ("appfile-invalid", "process.command")


def test_shell_operators_inside_quotes_are_fine() -> None:
    found = parse_appfile("name = 'b'\n[process]\ncommand = '''sh -c 'a && b' '''\n")
    assert isinstance(found, AppFile)


@pytest.mark.parametrize(
    ("name", "code"),
    [("Board", "name-invalid"), ("a--b", "name-invalid"), ("board-eu-west-1", "name-contains-topology")],
)
def test_a_name_keeps_the_rules_of_names(name: str, code: str) -> None:
    problem = problem_of(f'# an app\nname = "{name}"\n[process]\ncommand = "x"\n')
    assert (problem.code, problem.facts["line"], problem.facts["file"]) == (code, 2, "moorage.toml")
    assert "moorage.toml, line 2" in problem.detail


def test_text_that_is_not_utf_8_or_too_long() -> None:
    assert problem_of(b'name = "board"\n# \xff\n').facts["line"] == 2
    assert "bytes" in str(problem_of("#" * 70_000).facts["found"])
    assert problem_of("x = " + "[" * 10_000).code == "appfile-invalid"
    assert problem_of("name = 'b'\n[state]\nmodule." + ".".join(["a"] * 20_000) + " = 1").code == "appfile-invalid"


@pytest.mark.parametrize(
    "text",
    [
        "a." * 30_000 + "a=1",
        '"!".' * 16_000 + "a=1",
        "[[migration]]\n" * 4_500,
        "[process]\n" + "\n".join(f"a{i} = 1" for i in range(5_000)),
        "." + " " * 60_000 + "a",
    ],
)
def test_a_hostile_file_is_answered_at_once(text: str) -> None:
    began = monotonic_s()
    assert problem_of(text).code == "appfile-invalid"
    assert monotonic_s() - began < 3.0


def test_the_first_problem_of_the_file_is_told() -> None:
    assert problem_of("name = 'b'\n[store]\nenabled = 1\n[process]\nx = 2\n").facts["line"] == 3


def test_a_missing_file_has_a_code_and_a_way_on() -> None:
    problem = missing_appfile("/srv/board")
    assert problem.code == "appfile-missing"
    assert "moorage init" in problem.hint


def test_impacts_are_those_of_the_domain() -> None:
    assert set(IMPACTS) == set(DataImpact)
    assert set(MODES) == {"handover", "drain"}


_KEYS = [key for section in KEYS.values() for key in section] + [*KEYS, "other", "x"]
_VALUES: st.SearchStrategy[str] = st.recursive(
    st.one_of(
        st.sampled_from(["true", "nan", "-inf", "1979-05-27", '"./serve"', "'/'", '"""\n[x]\n"""', '"a:b"', "1e9"]),
        st.integers().map(str),
        st.text(max_size=8).map(lambda t: '"' + t.replace("\\", "").replace('"', "") + '"'),
    ),
    lambda inner: st.lists(inner, max_size=3).map(lambda v: "[" + ", ".join(v) + "]"),
    max_leaves=4,
)
_LINES = st.one_of(
    st.tuples(st.sampled_from(_KEYS), _VALUES).map(lambda kv: f"{kv[0]} = {kv[1]}"),
    st.sampled_from(list(KEYS)).map(lambda s: f"[{s}]"),
    st.sampled_from(list(KEYS)).map(lambda s: f"[[{s}]]"),
    st.text(max_size=20),
)


@given(st.one_of(st.lists(_LINES, max_size=12).map("\n".join), st.text(), st.binary()))
def test_the_parser_never_raises(text: str | bytes) -> None:
    answer = parse_appfile(text)
    if isinstance(answer, Problem):
        line = answer.facts["line"]
        whole = text if isinstance(text, str) else text.decode("utf-8", "replace")
        assert isinstance(line, int)
        assert 1 <= line <= whole.count("\n") + 1
        assert answer.detail
    else:
        tomllib.loads(text if isinstance(text, str) else text.decode())


@given(
    st.lists(_LINES, max_size=6).map("\n".join),
)
def test_a_valid_start_stays_valid_or_names_a_line(tail: str) -> None:
    answer = parse_appfile(RUNS + tail)
    assert isinstance(answer, AppFile) or answer.code == "appfile-invalid"
