"""The engine: leases unfinished operations, runs their code, and takes over what an earlier process left.

An operation's code is an async function of `Work`. It may be killed at any moment: it records what it has done as
facts under its lease, and when it starts again it looks at them first. A write under an old token changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import structlog

from moorage.control.context import Control
from moorage.domain.errors import MoorageError, Problem, Unavailable
from moorage.domain.operation import MACHINES, Kind, is_final
from moorage.store import operations as store
from moorage.store.database import Tx
from moorage.store.operations import LeaseLost, Operation
from moorage.system.clock import monotonic_s, pause
from moorage.wire.problem import problem_document

T = TypeVar("T")
_log = structlog.get_logger()
RETRY_AFTER_S = 1.0


class Ended(Exception):
    """Leave the operation's code with this final state and the problem that explains it."""

    def __init__(self, state: str, problem: Problem | None = None, **facts: Any) -> None:
        super().__init__(state)
        self.state, self.problem, self.facts = state, problem, facts


class Finished(Exception):
    """Leave the operation's code: its final state is recorded already."""


class Work:
    """One lease of one operation: what its code may do."""

    def __init__(self, control: Control, operation: Operation) -> None:
        self.control, self.operation = control, operation

    @property
    def facts(self) -> dict[str, Any]:
        return self.operation.facts

    @property
    def input(self) -> dict[str, Any]:
        return self.operation.input

    @property
    def actor(self) -> str:
        return self.operation.actor

    async def stage(
        self,
        state: str,
        note: str = "",
        *,
        problem: Problem | None = None,
        detail: dict[str, Any] | None = None,
        **facts: Any,
    ) -> None:
        """Record a stage and facts under the lease."""
        await self.commit(state, lambda _tx: facts, note, problem=problem, detail=detail)

    async def commit(
        self,
        state: str,
        body: Callable[[Tx], dict[str, Any]],
        note: str = "",
        *,
        problem: Problem | None = None,
        detail: dict[str, Any] | None = None,
    ) -> None:
        """Run `body` and record the stage in one transaction; the facts it returns are kept. Raises LeaseLost."""
        operation = self.operation
        document = problem_document(problem) if problem else None

        def both(tx: Tx) -> Operation:
            store.record(tx, operation.id, operation.state, token=operation.token)  # the fence comes first
            facts = body(tx)
            return store.record(
                tx,
                operation.id,
                state,
                token=operation.token,
                note=note,
                facts=facts,
                problem=document,
                detail=detail,
            )

        self.operation = await self.control.db.write(both, actor=self.actor)

    async def read(self, body: Callable[[Tx], T]) -> T:
        """Read what is committed."""
        return await self.control.db.read(body)

    async def wait(self, condition: Callable[[Tx], bool], *, timeout_s: float) -> bool:
        """Wait until the condition over committed rows (and live reports) holds; says whether it did.

        Raises Ended (`canceled`) when somebody has asked for it and the machine still allows it.
        """
        deadline = monotonic_s() + timeout_s
        while True:
            seen = self.control.db.changes.version
            if await self.read(condition):
                return True
            await self.check_cancel()
            left = deadline - monotonic_s()
            if left <= 0:
                return False
            await self.control.db.changes.wait(seen, min(left, 0.25))

    async def check_cancel(self) -> None:
        """Leave as `canceled` when that was asked for and still prevents something."""
        current = await self.read(lambda tx: store.require(tx, self.operation.id))
        if current.cancel and "canceled" in MACHINES[current.kind][current.state]:
            raise Ended("canceled", Problem("operation-canceled", "Canceled on request; the owner was not changed"))


Code = Callable[[Work], Awaitable[None]]


class Engine:
    """Runs every unfinished operation that belongs to the control plane, each in a task of its own."""

    def __init__(self, control: Control, codes: Mapping[Kind, Code]) -> None:
        self._control, self._codes = control, codes
        self._running: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Look for work after every change and at least each second."""
        async with asyncio.TaskGroup() as group:
            seen = -1
            while True:
                try:
                    await self.start_once(group)
                except Unavailable as failed:
                    _log.warning("engine waits", problem=str(failed))
                    await pause(RETRY_AFTER_S)
                seen = await self._control.db.changes.wait(seen, 1.0)

    async def start_once(self, group: asyncio.TaskGroup) -> None:
        """Lease and start what is unfinished and not yet running here."""
        for operation in await self._control.db.read(store.unfinished):
            if operation.id in self._running or not self._is_ours(operation):
                continue
            leased = await self._control.db.write(lambda tx, op=operation: store.lease(tx, op, self._control.boot))  # type: ignore[misc]
            if leased:
                task = group.create_task(self._work(leased), name=operation.id)
                self._running[operation.id] = task
                task.add_done_callback(lambda _task, id=operation.id: self._running.pop(id, None))  # type: ignore[misc]

    @staticmethod
    def _is_ours(operation: Operation) -> bool:
        return operation.kind is not Kind.DEPLOY or "artifact" in operation.facts

    async def _work(self, operation: Operation) -> None:
        """One lease of an operation. When even its end cannot be recorded, the next pass leases it anew."""
        try:
            await self._attempt(operation)
        except Unavailable as failed:
            _log.warning("operation waits", operation=operation.id, problem=str(failed))
            await pause(RETRY_AFTER_S)

    async def _attempt(self, operation: Operation) -> None:
        work = Work(self._control, operation)
        try:
            await self._codes[operation.kind](work)
            assert is_final(operation.kind, work.operation.state), f"{operation.kind} left in {work.operation.state}"
        except Ended as ended:
            await self._finish(work, ended.state, ended.problem, ended.facts)
        except Finished:
            return
        except LeaseLost:
            _log.warning("lease lost", operation=operation.id, token=operation.token)
            await self._control.db.write(
                lambda tx: store.refuse_late(tx, operation.id, operation.token, work.operation.state),
                actor=self._control.boot,
            )
        except Unavailable:
            raise
        except MoorageError as failed:
            await self._finish(work, failure_state(work.operation), failed.problem, {})
        except Exception as bug:  # noqa: BLE001 - one operation's bug must not stop the others
            _log.exception("operation failed by a bug", operation=operation.id)
            problem = Problem("internal-error", "The operation failed by a bug", repr(bug), status=500)
            await self._finish(work, failure_state(work.operation), problem, {})

    async def _finish(self, work: Work, state: str, problem: Problem | None, facts: dict[str, Any]) -> None:
        try:
            await work.stage(state, str(problem) if problem else "", problem=problem, **facts)
        except LeaseLost:
            _log.warning("lease lost at the end", operation=work.operation.id)


def failure_state(operation: Operation) -> str:
    """The final state that says `it did not work` from where the operation is."""
    following = MACHINES[operation.kind][operation.state]
    return "failed" if "failed" in following else "settled_with_losses"
