"""One build, step by step: a source folder becomes a tree and its manifest. Only files inside the work folder change.

The work folder holds `source/` (unpacked), `tree/` (the artifact to be), `wheels/` and notes of tools.
"""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from moorage.artifacts.tree import hash_tree
from moorage.build import serve
from moorage.build.bench import Bench, in_thread, last, short
from moorage.build.outcome import Blocked, Failed
from moorage.build.plan import (
    APP,
    PIP_ENVIRON,
    PUBLIC,
    PYPROJECT,
    REQUIREMENTS,
    SERVER,
    SITE,
    Dependencies,
    Kind,
    Plan,
    pip_command,
    pip_problem,
    plan_build,
    with_own_sdk,
)
from moorage.build.sdk_wheel import sdk_version, write_sdk_wheel
from moorage.build.tree import copy_site_files, copy_tree, native_files, normalise_site
from moorage.build.validate import SCHEMA_TIMEOUT_S, Made, Served, check_process, read_state
from moorage.build.vango.app import VangoBuild
from moorage.build.vango.toolchain import CACHE, cache_folder
from moorage.domain.appfile import APPFILE_MAX_BYTES, APPFILE_NAME, AppFile, missing_appfile, parse_appfile
from moorage.domain.artifact import Depth, Manifest
from moorage.domain.detect import GO_MOD, VANGO_FILE, is_vango
from moorage.domain.errors import Problem
from moorage.domain.limits import BUILD_TIMEOUT_S
from moorage.domain.names import check_name
from moorage.system.files import sha256_of

ARTIFACT_TOTAL_MAX_BYTES = 4 << 30
TEXT_MAX_BYTES = 1 << 20  # requirements.txt and pyproject.toml
ASSETS_NAMED_MAX_CHARS = 256 << 10  # a site with more names none: the list only informs, and travels in a report

_REQUIREMENTS_AS_USED = ".moorage-requirements.txt"

Stage = Callable[[str, str], Awaitable[None]]  # (stage, one line for people)


@dataclass(frozen=True, slots=True)
class Workshop:
    """What builds are done with: `host` is the environment that tools may take their settings from, `pip_python` the
    interpreter whose pip installs, `app_python` the one that will run the app."""

    host: Mapping[str, str]
    pip_python: str = sys.executable
    app_python: str = field(default_factory=lambda: str(getattr(sys, "_base_executable", "") or sys.executable))
    timeout_s: float = BUILD_TIMEOUT_S
    total_max_bytes: int = ARTIFACT_TOTAL_MAX_BYTES


@dataclass(frozen=True, slots=True)
class Order:
    """What to build: the app's name, facts of its source, the build-scope secrets."""

    app: str
    source_facts: Mapping[str, object] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)


class Assembly:
    """One build in one work folder; `source/` is there."""

    def __init__(self, work: Path, order: Order, shop: Workshop) -> None:
        self._bench = Bench(work, shop.host, order.secrets, shop.timeout_s)
        self.work, self.tree, self._source = work, self._bench.tree, self._bench.source
        self._order, self._shop = order, shop

    async def run(self, stage: Stage) -> Manifest:
        """Make `tree/` and return its manifest; `stage` hears of each step.

        Raises Blocked, Failed, TreeRefused and OSError.
        """
        appfile = read_appfile(self._source, self._order.app)
        if appfile.build.command:
            await stage("building", f"running `{short(appfile.build.command)}`")
            await self._run_command(appfile.build.command)
        content = self._output(appfile)
        plan = self._plan(appfile, content)
        if plan.kind is Kind.VANGO:
            made = await self._make_vango(appfile, plan, content, stage)
        else:
            made = await self._make(appfile, plan, content, stage)
        return await self._manifest(appfile, plan, made)

    async def _make(self, appfile: AppFile, plan: Plan, content: Path, stage: Stage) -> Made:
        """The tree of an app in Python, of a site, or of what a command left."""
        if plan.dependencies is not None:
            await stage("building", f"installing the packages of {plan.dependencies.source}")
        facts: dict[str, object] = {"python": platform.python_version()} if plan.kind is Kind.PYTHON else {}
        await in_thread(self._copy, plan, appfile, content)
        if plan.dependencies is not None:
            facts |= await self._install(plan.dependencies, content)
        await stage("validating", "reading what was built")
        self._check_process(plan)
        return await self._validated(appfile, facts, is_site=plan.kind is Kind.STATIC)

    async def _make_vango(self, appfile: AppFile, plan: Plan, content: Path, stage: Stage) -> Made:
        cache = cache_folder(self._bench.environ, self.work.parent / CACHE)
        made = await VangoBuild(self._bench, cache).run(appfile, content, stage)
        await stage("validating", "reading what was built")
        self._check_process(plan)
        return made

    def _check_process(self, plan: Plan) -> None:
        problem = check_process(plan.process, plan.kind, self.tree)
        if problem is not None:
            raise Blocked(problem)

    def _plan(self, appfile: AppFile, content: Path) -> Plan:
        requirements = _text(content / REQUIREMENTS) or _text(self._source / REQUIREMENTS)
        pyproject = _text(content / PYPROJECT) or _text(self._source / PYPROJECT)
        top = {name for name in (VANGO_FILE, GO_MOD) if (self._source / name).is_file()}
        plan = plan_build(appfile, requirements, pyproject, vango=is_vango(top))
        if isinstance(plan, Problem):
            raise Blocked(plan)
        return plan

    async def _run_command(self, command: str) -> None:
        """The explicit build command, in the unpacked source, which is this build's own copy."""
        ran = await self._bench.run(("sh", "-c", command), self._source, {})
        if ran.succeeded:
            return
        problem = Problem(
            "build-command-failed",
            "The build command failed",
            f"`{short(command)}` ended with exit code {ran.exit_code}",
            "Run it yourself in a clean copy of the source, correct it, then deploy again.",
            422,
            {"exit_code": ran.exit_code},
        )
        raise Failed(problem, last(ran))

    def _output(self, appfile: AppFile) -> Path:
        """The folder with what will run or be served."""
        content = self._source / appfile.build.output
        if appfile.static is not None:
            content = content / appfile.static.root
        if not content.is_dir():
            key = "[static] root" if appfile.static else "[build] output"
            shown = content.relative_to(self._source).as_posix()
            hint = f"Correct `{key}` in {APPFILE_NAME}, or let the build command write that folder."
            raise Blocked(
                Problem("build-output-missing", "The build left no output", f"no folder `{shown}`", hint, 422)
            )
        if not content.resolve().is_relative_to(self._source.resolve()):
            hint = "Let the build command copy files instead of linking them."
            raise Blocked(
                Problem("build-output-outside", "The output leads out of the source", str(content), hint, 422)
            )
        return content

    def _copy(self, plan: Plan, appfile: AppFile, content: Path) -> None:
        app = self.tree / APP
        if plan.kind is not Kind.STATIC:
            copy_tree(content, app)
            return
        copy_site_files(content, app / PUBLIC)
        shutil.copyfile(serve.__file__, app / SERVER)
        spa = appfile.static is not None and appfile.static.spa
        if not (app / PUBLIC / "index.html").is_file():
            where = "that every page of a `spa` is answered with" if spa else "for its front page"
            detail = f"the site has no index.html at its top, {where}"
            hint = "Add index.html, or set `[static] root` to the folder that has it."
            raise Blocked(Problem("static-index-missing", "The site has no front page", detail, hint, 422))

    async def _install(self, wanted: Dependencies, content: Path) -> dict[str, object]:
        """Install the packages into `site/`; the facts about them."""
        wheels, site = self.work / "wheels", self.tree / SITE
        await in_thread(wheels.mkdir)
        sdk = await in_thread(write_sdk_wheel, wheels)
        constraints, folder = self.work / "constraints.txt", content
        if wanted.file and not (content / wanted.file).is_file():
            folder = self._source
        asked = (_text(folder / wanted.file) or "") if wanted.file else "\n".join([*wanted.listed, ""])
        text, bound = with_own_sdk(asked, sdk.as_uri(), sha256_of(sdk))
        constraints.write_text(bound)
        # beside the original, since paths in it are relative to its folder; the tree was copied before
        requirements = folder / (wanted.file if text == asked and wanted.file else _REQUIREMENTS_AS_USED)
        if requirements.name == _REQUIREMENTS_AS_USED:
            requirements.write_text(text)
        site.mkdir()
        command = pip_command(
            self._shop.pip_python,
            site=str(site),
            wheels=str(wheels),
            constraints=str(constraints),
            requirements=str(requirements),
        )
        ran = await self._bench.run(command, folder, PIP_ENVIRON)
        if not ran.succeeded:
            problem = pip_problem(ran.lines, wanted.source)
            blocked = problem.code == "python-version-unsupported"
            raise (Blocked if blocked else Failed)(problem, last(ran))
        installed = await in_thread(normalise_site, site)
        facts: dict[str, object] = {"distributions": [list(each) for each in installed], "packages_from": wanted.source}
        if any(native_files(site)):
            facts["native"] = f"{platform.system().lower()}-{platform.machine()}"
        return facts

    async def _validated(self, appfile: AppFile, facts: Mapping[str, object], *, is_site: bool) -> Made:
        """Read the declared state out of the tree."""
        uses_sdk = (self.tree / SITE / "moorage_app").is_dir()
        state = await read_state(
            appfile,
            self.tree,
            uses_sdk=uses_sdk,
            python=self._shop.app_python,
            environ=self._bench.environ,
            secrets=self._bench.secrets,
            work=self.work,
            timeout_s=min(SCHEMA_TIMEOUT_S, self._bench.left_s()),
        )
        served = Served(f"{APP}/{PUBLIC}", "/") if is_site else None
        return Made(Depth.SDK if uses_sdk else Depth.PLAIN, state, served, facts)

    async def _manifest(self, appfile: AppFile, plan: Plan, made: Made) -> Manifest:
        """What the tree is, if its size is allowed."""
        files = await in_thread(hash_tree, self.tree)
        total = sum(entry.size for entry in files)
        if total > self._shop.total_max_bytes:
            detail = f"{total} bytes; {self._shop.total_max_bytes} are allowed"
            hint = "Leave out what the app does not need to run."
            raise Blocked(Problem("artifact-too-large", "The artifact is too large", detail, hint, 422))
        assets = made.served.paths(entry.path for entry in files) if made.served else ()
        return Manifest(
            app=appfile.name,
            kind=plan.kind,
            process=plan.process,
            files=files,
            depth=made.depth,
            state=made.state.entries,
            migrations=appfile.migrations,
            assets=assets if sum(map(len, assets)) <= ASSETS_NAMED_MAX_CHARS else (),
            source=dict(self._order.source_facts),
            facts={**made.facts, **_told(appfile, made), "file_count": len(files), "total_bytes": total},
        )


def read_appfile(source: Path, app: str) -> AppFile:
    """The app file of an unpacked source. Raises Blocked with the parser's problem, or when it names another app."""
    place = source / APPFILE_NAME
    if not place.is_file():
        raise Blocked(missing_appfile("the source"))
    with place.open("rb") as handle:
        answer = parse_appfile(handle.read(APPFILE_MAX_BYTES + 1))
    if isinstance(answer, Problem):
        raise Blocked(answer)
    if answer.name != app:
        assert check_name(answer.name) is None
        detail = f"{APPFILE_NAME} says `{answer.name}`, the deployment is of `{app}`"
        hint = f"Deploy it as `{answer.name}`, or change `name` in {APPFILE_NAME}."
        raise Blocked(Problem("appfile-other-app", "The source is of another app", detail, hint, 422))
    return answer


def _told(appfile: AppFile, made: Made) -> dict[str, object]:
    """What the app file says and later decisions need, and how well the state is known."""
    state = made.state
    facts: dict[str, object] = {
        "store": made.depth is not Depth.PLAIN if appfile.store is None else appfile.store,
        "checks": {"process": "built", "state": "built" if state.source else "none declared"},
    }
    if state.source:
        facts["state"] = {"level": "built", "source": state.source, "hash": state.hash, "fields": len(state.entries)}
    if made.depth is Depth.SDK:
        facts["sdk"] = sdk_version()
    if appfile.build.command:
        facts["build_command"] = appfile.build.command
    promotion = appfile.promotion
    told = {"mode": promotion.mode, "bake_s": promotion.bake_s, "drain_deadline_s": promotion.drain_deadline_s}
    return facts | {f"promotion_{key}": value for key, value in told.items() if value is not None}


def _text(place: Path) -> str | None:
    """The text of a small file, None when there is none. Raises Blocked for one that is no text."""
    if not place.is_file():
        return None
    with place.open("rb") as handle:
        data = handle.read(TEXT_MAX_BYTES + 1)
    try:
        if len(data) <= TEXT_MAX_BYTES:
            return data.decode("utf-8")
        why = f"more than {TEXT_MAX_BYTES} bytes"
    except UnicodeDecodeError:
        why = "not UTF-8"
    hint = f"Correct {place.name}."
    raise Blocked(
        Problem(
            "python-dependencies-unreadable", "The app's packages cannot be told", f"{place.name}: {why}", hint, 422
        )
    )
