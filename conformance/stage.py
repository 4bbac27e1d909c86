"""The stage of a run: the fixture app deployed, promoted, with its candidates, and what the checks ask of all that.

Rules of this room: what costs a build is made when it is first asked for, and kept. Production serves the app itself;
the candidates of the policy differ from it, so nothing here changes what production serves.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from conformance import policy
from conformance.asking import Answer, Route, ask, json_of
from conformance.fixture import APP, COLD, COLD_ACKNOWLEDGED, WARM, materialise
from conformance.ground import Ground, comes
from conformance.report import Cleaner
from conformance.tool import Tool
from moorage.domain.errors import MoorageError
from moorage.sessions.stored_records import StoredRecords
from moorage.vango.companions import FAMILIES, FOLDER
from moorage.vango.records import label_of
from moorage.wire.artifact import ArtifactDetail

ROOT: Final = Path(__file__).resolve().parents[1]
SHORT_WINDOW_S: Final = 10
SCENARIOS: Final = {"warm": WARM, "cold": COLD, "cold_acknowledged": COLD_ACKNOWLEDGED}


@dataclass(slots=True)
class Stage:
    """A platform with the fixture app in production. `folder` is scratch, `sources` the app as it was deployed."""

    ground: Ground
    tool: Tool
    folder: Path
    policy_url: str = ""
    base: int = 0
    _candidates: dict[str, int] = field(default_factory=dict)
    _previews: dict[str, int] = field(default_factory=dict)
    _marks: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def sources(self) -> Path:
        """The folder that was deployed."""
        return self.folder / "app"

    @property
    def cleaner(self) -> Cleaner:
        """What of this run does not belong into a report."""
        folders = (str(self.folder.parent), str(ROOT), str(Path.home()))
        return Cleaner((self.ground.port,), tuple(folder for folder in folders if folder != "/"))

    def mark(self, what: str) -> str:
        """A word that was not used before in this run."""
        return f"{what}-{next(self._marks)}"

    # ---- deployments ------------------------------------------------------------------------------------------
    async def open(self) -> None:
        """Deploy the app and promote it. Raises CommandError."""
        materialise(self.sources)
        self.base = await self.ground.deploy(self.sources)
        await self.set_secret("CONFORMANCE_POLICY_URL", self.policy_url, "runtime")
        await self.ground.do("promote", APP, "--deployment", str(self.base))

    async def set_secret(self, name: str, value: str, scope: str) -> None:
        """Set a variable of the app. Raises CommandError."""
        await self.ground.do("secret", "set", APP, name, "--scope", scope, text=value)

    async def candidate(self, variant: str) -> int:
        """The deployment of a variant, made when it is first asked for."""
        if variant not in self._candidates:
            folder = materialise(self.folder / variant, variant)
            self._candidates[variant] = await self.ground.deploy(folder)
        return self._candidates[variant]

    async def preview(self, name: str, variables: Mapping[str, str]) -> int:
        """A deployment of the app itself whose preview has these variables, made when it is first asked for."""
        if name not in self._previews:
            for variable, value in variables.items():
                await self.set_secret(variable, value, "preview")
            self._previews[name] = await self.ground.deploy(self.sources)
            for variable in variables:
                await self.ground.do("secret", "unset", APP, variable, "--scope", "preview")
        return self._previews[name]

    async def short_preview(self) -> Route:
        """A preview whose sessions can be resumed for SHORT_WINDOW_S only."""
        variables = {"RESUME_WINDOW": f"{SHORT_WINDOW_S}s", "CONFORMANCE_POLICY_URL": self.policy_url}
        return self.ground.preview(await self.preview("short", variables))

    async def hookless_preview(self) -> int:
        """A deployment whose preview cannot resume a stored session."""
        return await self.preview("hookless", {"CONFORMANCE_RESUME_HOOK": "off"})

    def routes(self, names: tuple[str, ...]) -> list[Route]:
        """The routes of these names: `production`, `preview`."""
        known = {"production": self.ground.production(), "preview": self.ground.preview(self.base)}
        return [known[name] for name in names]

    # ---- what is known of the artifact ------------------------------------------------------------------------
    async def artifact(self, number: int) -> ArtifactDetail:
        """The artifact of a deployment."""
        async with self.ground.api() as api:
            digest = (await api.deployment(APP, number)).artifact
            return await api.artifact(digest or "")

    def tree(self, artifact: ArtifactDetail) -> Path:
        """The stored files of an artifact."""
        return self.ground.home / "artifacts" / artifact.digest.replace(":", "/") / "tree" / "app"

    def companions(self, artifact: ArtifactDetail) -> dict[str, dict[str, Any]]:
        """The framework's documents that are kept with an artifact, by their path below `.vango/`."""
        folder = self.tree(artifact) / FOLDER
        return {path: json.loads((folder / path).read_bytes()) for path in FAMILIES if (folder / path).is_file()}

    async def policy_marks(self, scenario: str) -> Mapping[str, str] | None:
        """What a promotion of a scenario's candidate would do now, in the contract's words."""
        variant = SCENARIOS.get(scenario)
        if variant is None or variant not in self._candidates:
            return None
        try:
            report = await self.ground.report(self._candidates[variant])
            serving = await self.artifact(self.base)
            return policy.marks(report, serving, await self.artifact(self._candidates[variant]))
        except MoorageError:
            return None

    # ---- asking the app ---------------------------------------------------------------------------------------
    async def seen(self, route: Route, target: str = "/api/seen", **more: Any) -> dict[str, Any]:
        """What the app saw of a request to its mirror. Raises ValueError for another answer."""
        found = json_of(await ask(route, target, **more))
        assert isinstance(found, dict), "the mirror answers an object"
        return found

    async def overheard(self, route: Route, mark: str) -> list[dict[str, Any]]:
        """Upgrades with a mark in their target, as the app saw them."""
        found = json_of(await ask(route, f"/api/overheard?mark={mark}"))
        assert isinstance(found, list), "what was overheard is a list"
        return found

    async def counted(self, route: Route, kind: str, key: str, cookies: Mapping[str, str] | None = None) -> int:
        """How often the app has done something."""
        answer: Answer = await ask(route, f"/api/counts?kind={kind}&key={key}", cookies=cookies)
        return int(json_of(answer)["count"])

    async def is_stored(self, session: str) -> bool:
        """Whether the store of production comes to hold a record of a session."""
        label = label_of(session)
        async with self.ground.store() as admin:
            records = StoredRecords(admin)

            async def there() -> bool:
                return label in await records.of([label])

            return await comes(there, 10.0)


@asynccontextmanager
async def stage(ground: Ground, tool: Tool) -> AsyncIterator[Stage]:
    """A stage on this ground, with its policy desk; the app is not deployed yet."""
    folder = ground.home.parent / "stage"
    folder.mkdir()
    own = Stage(ground, tool, folder)
    try:
        async with policy.desk(own.policy_marks) as url:
            own.policy_url = url
            yield own
    finally:
        shutil.rmtree(folder, ignore_errors=True)
