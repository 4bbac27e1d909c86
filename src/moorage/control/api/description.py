"""The OpenAPI document as it is served: what the routes declare, and what holds for all of them.

Every refusal is problem details, whatever its status; a bearer token opens everything but the health routes.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from moorage.wire.problem import CONTENT_TYPE

_TEXT = {"type": "string"}
_PROBLEM = {
    "title": "Problem",
    "description": "Problem details (RFC 9457). `code` is stable; facts of a code are members of their own.",
    "type": "object",
    "required": ["type", "code", "title", "status"],
    "properties": {
        "type": _TEXT,
        "code": _TEXT,
        "title": _TEXT,
        "detail": _TEXT,
        "hint": _TEXT,
        "status": {"type": "integer"},
    },
}
_REFUSED = {
    "description": "Refused or failed; `code` says why",
    "content": {CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
}


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI 3.1 document of the app, made once."""
    if app.openapi_schema is None:
        made = get_openapi(title=app.title, version=app.version, routes=app.routes)
        schemas: dict[str, Any] = made["components"]["schemas"]
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        schemas["Problem"] = _PROBLEM
        made["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        for operations in made["paths"].values():
            for operation in operations.values():
                _complete(operation)
        app.openapi_schema = made
    return app.openapi_schema


def _complete(operation: dict[str, Any]) -> None:
    """FastAPI describes its own validation errors; ours leave as problem details like everything else."""
    operation["responses"].pop("422", None)
    operation["responses"]["default"] = _REFUSED
    if "health" not in operation.get("tags", ()):
        operation["security"] = [{"token": []}]
