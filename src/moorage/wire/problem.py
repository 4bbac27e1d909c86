"""Problem details (RFC 9457) as the API sends them: `type` points at the documentation of the stable `code`."""

from __future__ import annotations

from typing import Any

from moorage.domain.errors import Problem

CONTENT_TYPE = "application/problem+json"


def problem_document(problem: Problem) -> dict[str, Any]:
    """The JSON document of a problem; facts become members of their own."""
    return {
        **problem.facts,
        "type": f"urn:moorage:error:{problem.code}",
        "code": problem.code,
        "title": problem.title,
        "detail": problem.detail,
        "hint": problem.hint,
        "status": problem.status,
    }
