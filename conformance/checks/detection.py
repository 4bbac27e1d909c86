"""Tier 0: what the app brings for hosts is read, kept and believed as far as it deserves; needs are met or named."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Final

from conformance.asking import Route, ask
from conformance.checks.security import expect_blocked
from conformance.fixture import APP, COLD, WARM
from conformance.report import Seen, Status
from conformance.stage import Stage
from conformance.tool import ask as ask_tool
from moorage.vango.bindings import Service, binding_document, services
from moorage.vango.companions import FAMILIES
from moorage.vango.variables import store_binding

SERVICES: Final = "runtime/vango_runtime_services.json"
ENVIRONMENT: Final = "env/vango_secret_env_contract.json"
DATABASE: Final = "db/vango_db_contract.json"
HOST: Final = "host/vango_host_manifest.json"
# Names that the contract asks for and version 0.2.4 never reads, with what it reads instead; and what is set only after
# a rotation.
_READ_INSTEAD: Final = {
    "VANGO_BROADCAST_URL": "VANGO_PUBSUB_URL",
    "VANGO_GLOBAL_SIGNAL_STORE_URL": "VANGO_SESSION_STORE_URL",
}
_ROTATION_ONLY: Final = "VANGO_PERSISTENCE_SECRET_PREVIOUS"
_SECRETS: Final = ("VANGO_PERSISTENCE_SECRET", "VANGO_CSRF_SECRET")


async def parse(stage: Stage, route: Route, seen: Seen) -> None:
    artifact = await stage.artifact(stage.base)
    found, vango = stage.companions(artifact), artifact.facts["vango"]
    seen.expect(vango["companions"]["by"] == "framework", "written by the framework's own tool", vango["companions"])
    for path in (HOST, SERVICES, ENVIRONMENT, DATABASE, "routes/vango_route_contract.json"):
        told = found.get(path, {}).get("schema_version")
        seen.expect(bool(told), f".vango/{path}: {told}", "absent")
    digests: dict[str, str] = vango["companions"]["digests"]
    folder = stage.tree(artifact)
    same = all(_digest(folder / path) == digest for path, digest in digests.items())
    seen.expect(len(digests) == len(found) and same, f"{len(digests)} documents are kept with their digests", digests)
    schema = json.loads((folder / "vango_state_schema.json").read_bytes())["schemaHash"]
    seen.expect(vango["schema_hash"] == schema, f"state schema {schema}", vango["schema_hash"])
    seen.expect(vango["version"] == stage.tool.version, f"framework version {vango['version']}", stage.tool.version)


def _digest(place: Path) -> str:
    return f"sha256:{hashlib.sha256(place.read_bytes()).hexdigest()}"


async def schema_supported(stage: Stage, route: Route, seen: Seen) -> None:
    found = stage.companions(await stage.artifact(stage.base))
    for path, document in sorted(found.items()):
        version = f"vango.{FAMILIES[path]}.v1."
        told = str(document["schema_version"])
        seen.expect(told.startswith(version), f"known: {told}", f"{path}: {told}")
    await expect_blocked(stage, seen, "vango.host.v9.0", "vango-version-unknown")


async def runtime_paths_valid(stage: Stage, route: Route, seen: Seen) -> None:
    told = stage.companions(await stage.artifact(stage.base))[HOST]["runtime"]["http"]
    for name, status in (("live_path", 400), ("legacy_ws_path", 400), ("client_script_path", 200)):
        path = str(told[name])
        answer = await ask(route, f"{path}?path=%2F" if status == 400 else path)
        seen.expect(answer.status == status, f"{name}: GET {path} -> {status}", answer.line)
        seen.expect(path.startswith(told["runtime_endpoint_prefix"]), f"below {told['runtime_endpoint_prefix']}")


def _environ(pid: int | None) -> dict[str, str]:
    """The variables of a process of ours."""
    raw = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return dict(entry.decode().split("=", 1) for entry in raw if b"=" in entry)


async def required_secrets(stage: Stage, route: Route, seen: Seen) -> None:
    told = stage.companions(await stage.artifact(stage.base))[ENVIRONMENT]["variables"]
    required = sorted(v["name"] for v in told if v["required"] and "runtime" in v["scopes"])
    given = _environ((await stage.ground.serving()).pid)
    for name in required:
        read = _READ_INSTEAD.get(name, name)
        if name == _ROTATION_ONLY:
            seen.note(f"{name}: set after a rotation only")
            continue
        told = "given" if read == name else f"read by nothing in version {stage.tool.version}; {read} is given"
        seen.expect(bool(given.get(read)), f"{name}: {told}", "absent")
    preview = [a for a in await stage.ground.allocations(f"preview {stage.base}") if a.state == "ready"]
    other = _environ(preview[0].pid)
    for name in _SECRETS:
        seen.expect(bool(other.get(name)) and other[name] != given.get(name), f"{name}: previews have one of their own")
    url = other.get("VANGO_PUBLIC_URL", "")
    seen.expect(
        url.startswith("http://") and url != given.get("VANGO_PUBLIC_URL"), "VANGO_PUBLIC_URL: that of the route"
    )


async def runtime_services(stage: Stage, route: Route, seen: Seen) -> None:
    contract = stage.companions(await stage.artifact(stage.base))[SERVICES]
    async with stage.ground.api() as api:
        bound = {view.service_class: view for view in await api.bindings(APP)}
    for service in contract["services"]:
        view = bound.get(service["class"])
        state = "absent" if view is None else view.state
        seen.expect(view is not None and state != "failed", f"{service['id']}: {state}", state)
    probed = {name: view.state == "active" for name, view in bound.items()}
    await _validated(stage, seen, services(store_binding({}, "redis://managed"), probed))


async def _validated(stage: Stage, seen: Seen, bound: tuple[Service, ...]) -> None:
    """The framework's tool accepts what the platform binds, for the operations that the platform has."""
    good = ("ready", "ready_with_warnings", "degraded_ready")
    for operation in ("preview_deploy", "production_promotion", "horizontal_scale"):
        document = binding_document(bound, environment="production", environment_id="env_1", operation=operation)
        place = stage.folder / f"bindings-{operation}.json"
        place.write_text(json.dumps(document))
        said = await ask_tool(
            stage.tool, stage.sources, "services", "validate", "--json", "--host-bindings", str(place), "--operation",
            operation,
        )  # fmt: skip
        status = _status_of(said, operation)
        seen.expect(status in good, f"tool, services validate for {operation}: {status}", status)


def _status_of(said: dict[str, Any], operation: str) -> str:
    rows = said.get("operation_readiness") or said.get("operations") or []
    named = [row for row in rows if isinstance(row, dict) and row.get("operation") == operation]
    return str(named[0].get("status")) if named else str(said.get("status"))


async def state_impact(stage: Stage, route: Route, seen: Seen) -> None:
    warm = await stage.ground.report(await stage.candidate(WARM))
    told = (warm.forward, warm.backward, warm.verdict)
    seen.expect(told == ("warm", "cold", "allow"), "a field is added: warm forward, cold backward; allowed", told)
    cold_number = await stage.candidate(COLD)
    cold = await stage.ground.report(cold_number)
    asked = (cold.forward, cold.verdict)
    seen.expect(asked == ("cold", "needs_acknowledgement"), "a field is retyped: cold, needs an acknowledgement", asked)
    text = next((change.text for change in cold.forward_changes), "")
    seen.expect(text.startswith("count retyped"), "the change that decides: count retyped", text)
    before = await stage.ground.serving()
    said = await stage.ground.command("promote", APP, "--deployment", str(cold_number))
    code = (said.document or {}).get("code")
    seen.expect(
        said.code != 0 and code == "acknowledgement-required", f"promoting it anyway: refused, {code}", said.text
    )
    after = await stage.ground.serving()
    seen.expect(before.number == after.number, "nothing was changed")


async def database(stage: Stage, route: Route, seen: Seen) -> None:
    contract = stage.companions(await stage.artifact(stage.base))[DATABASE]
    mode = contract["database_mode"]["mode"]
    seen.note(f"{contract['schema_version']}: database mode {mode}")
    if mode == "none":
        seen.set_aside(Status.NOT_APPLICABLE, "the app's manifest says that it has no database")
    else:
        seen.expect(False, "the fixture has no database", mode)
