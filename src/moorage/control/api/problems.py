"""Everything that is refused leaves as problem details (RFC 9457) with a stable code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from moorage.domain.errors import MoorageError, Problem
from moorage.wire.problem import CONTENT_TYPE, problem_document

_log = structlog.get_logger()
_HEADERS = {503: {"Retry-After": "1"}, 401: {"WWW-Authenticate": "Bearer"}}  # RFC 9110 sections 10.2.3 and 11.6.1


def answer(problem: Problem, more: Mapping[str, str] | None = None) -> Response:
    """The HTTP answer of a problem."""
    document = problem_document(problem)
    headers = {**_HEADERS.get(problem.status, {}), **(more or {})}
    return JSONResponse(document, status_code=problem.status, media_type=CONTENT_TYPE, headers=headers)


def invalid_request(errors: Sequence[Any]) -> Problem:
    """What was wrong with a request body or its parameters, field by field."""
    if any(error["type"] == "json_invalid" or _is_raw(error) for error in errors):
        return Problem(
            "request-not-json",
            "The request body is not JSON",
            str(errors[0].get("ctx", {}).get("error", "")),
            "Send `Content-Type: application/json` and a JSON document.",
            status=400,
        )
    found = [{"field": ".".join(str(part) for part in e["loc"]), "expected": e["msg"]} for e in errors]
    listed = "; ".join(f"{f['field']}: {f['expected']}" for f in found)
    return Problem(
        "request-invalid",
        "The request is not what this endpoint takes",
        listed,
        "Compare it with /openapi.json.",
        status=422,
        facts={"fields": found},
    )


def _is_raw(error: Any) -> bool:
    """Whether the whole body was taken as bytes, since its type is not JSON; a JSON text is a wrong type instead."""
    return tuple(error["loc"]) == ("body",) and isinstance(error.get("input"), bytes)


_HTTP_CODES = {404: "endpoint-unknown", 405: "method-not-allowed"}


def install(app: FastAPI) -> None:
    """Make the app answer every failure with problem details."""

    async def on_moorage(_request: Request, error: Exception) -> Response:
        assert isinstance(error, MoorageError)
        return answer(error.problem)

    async def on_invalid(_request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return answer(invalid_request(error.errors()))

    async def on_http(_request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if isinstance(error.__cause__, MoorageError):  # refused while the body was being read
            return answer(error.__cause__.problem)
        if error.status_code == 400 and "parsing the body" in str(error.detail):
            return answer(invalid_request([{"type": "json_invalid", "loc": ("body",), "msg": str(error.detail)}]))
        code = _HTTP_CODES.get(error.status_code, "http-error")
        return answer(Problem(code, str(error.detail), status=error.status_code), error.headers)

    async def on_bug(request: Request, error: Exception) -> Response:
        _log.exception("request failed by a bug", path=request.url.path, error=repr(error))
        return answer(Problem("internal-error", "The control plane failed by a bug", status=500))

    app.add_exception_handler(MoorageError, on_moorage)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(Exception, on_bug)
