"""The OpenAPI document of a service, its verbs included, and the five merged into one.

Verbs are no FastAPI routes, so their entries are made here from what `govor.verbs.verb` was told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, Field
from pydantic.json_schema import models_json_schema

from govor.errors import (
    Conflict,
    DeadlineExceeded,
    Forbidden,
    GovorError,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    Overloaded,
    PayloadTooLarge,
    RateLimited,
    RequestTimeout,
    Unauthenticated,
    Unprocessable,
    UnsupportedMedia,
)

_REF = "#/components/schemas/{model}"


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None = Field(description="The field that is wrong, if it is one.")
    code: str = Field(description="Stable and machine-readable.")


class Error(BaseModel):
    """Every error of every route has this shape."""

    error: ErrorDetail


_EXAMPLES: tuple[GovorError, ...] = (
    InvalidRequest("the body is not JSON", code="invalid_json"),
    Unauthenticated("the key is not known"),
    Forbidden("the key lacks the scope speak"),
    NotFound("there is no domain 'weather'", code="domain_not_found", param="domain"),
    MethodNotAllowed("/v1/understand takes POST"),
    RequestTimeout("the body did not arrive in time"),
    Conflict("the key was used with another body", code="idempotency_key_reused"),
    PayloadTooLarge("the body is over 1048576 bytes"),
    UnsupportedMedia("send JSON with Content-Type: application/json"),
    Unprocessable("Input should be less than or equal to 2", param="temperature"),
    RateLimited("over 600 requests a minute"),
    InternalError("something went wrong here; the log knows more"),
    Overloaded("512 requests are waiting", code="queue_full"),
    DeadlineExceeded("the deadline passed while the request waited"),
)

_TITLES = {
    400: "Bad request",
    401: "No key, or one that is not known",
    403: "The key lacks a scope",
    404: "Not found",
    405: "The path does not take this method",
    408: "The body came too slowly",
    409: "In conflict with an earlier request",
    413: "Over a limit of size",
    415: "A media type that is not understood",
    422: "A value outside its range",
    429: "Too many requests; `Retry-After` says when to come back",
    500: "Our fault",
    503: "Overloaded or a part is down; `Retry-After` says when to come back",
    504: "Not done by the deadline",
}

ERRORS: dict[int | str, dict[str, Any]] = {
    error.status: {
        "model": Error,
        "description": _TITLES[error.status],
        "content": {"application/json": {"example": error.body()}},
    }
    for error in _EXAMPLES
}
"""The `responses` of every FastAPI route."""

_SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


def document_of(app: FastAPI) -> dict[str, Any]:
    """The whole document of one service."""
    if app.openapi_schema is None:
        base = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        schemas = base.setdefault("components", {}).setdefault("schemas", {})
        for path, verb in app.state.verbs.items():
            base["paths"][path] = {"post": _operation(verb)}
            schemas.update(_schemas([m for m in (verb.request, *verb.answers.values()) if _is(m)]))
        schemas.update(_schemas([Error]))
        base["components"]["securitySchemes"] = _SECURITY
        base["security"] = [{}, {"bearer": []}, {"key": []}]
        app.openapi_schema = base
    return app.openapi_schema


def merge(documents: Mapping[str, dict[str, Any]], own: str) -> dict[str, Any]:
    """One document for the public door: all verbs, and everything of the service `own`."""
    merged = dict(documents[own])
    merged["info"] = {**merged["info"], "title": "Govor"}
    merged["paths"] = dict(merged["paths"])
    schemas = dict(merged["components"]["schemas"])
    for document in documents.values():
        for path, operations in document["paths"].items():
            if "post" in operations:
                merged["paths"].setdefault(path, operations)
        for name, schema in document["components"]["schemas"].items():
            if schemas.setdefault(name, schema) != schema:
                raise ValueError(f"two services disagree about the schema {name}")
    merged["components"] = {**merged["components"], "schemas": dict(sorted(schemas.items()))}
    merged["paths"] = dict(sorted(merged["paths"].items()))
    return merged


def _operation(verb: Any) -> dict[str, Any]:
    bodies = {media: {"schema": schema} for media, schema in verb.media.items()}
    if verb.request is not None:
        bodies["application/json"] = {"schema": _ref(verb.request)}
    for media, example in verb.examples.items():
        bodies[media]["example"] = example
    answers = {
        media: {"schema": _ref(schema) if _is(schema) else schema}
        for media, schema in verb.answers.items()
    }
    headers = {
        name: {"description": text, "schema": {"type": "string"}}
        for name, text in verb.headers.items()
    }
    return {
        "operationId": verb.path.rsplit("/", 1)[-1],
        "summary": verb.summary,
        "description": (verb.handler.__doc__ or "").strip(),
        "tags": [verb.app.state.service],
        "parameters": _PARAMETERS,
        "requestBody": {"required": True, "content": dict(sorted(bodies.items()))},
        "responses": {
            str(verb.status): {"description": "Done", "headers": headers, "content": answers},
            **{str(status): _error(entry) for status, entry in ERRORS.items()},
        },
    }


_PARAMETERS = [
    {
        "name": name,
        "in": "header",
        "required": False,
        "description": text,
        "schema": schema,
    }
    for name, text, schema in (
        ("X-Request-ID", "Echoed and written on every log line.", {"type": "string"}),
        ("X-Request-Timeout", "A deadline in seconds.", {"type": "number", "exclusiveMinimum": 0}),
        ("X-User-ID", "The person who speaks.", {"type": "string", "maxLength": 256}),
    )
]


def _error(entry: dict[str, Any]) -> dict[str, Any]:
    content = {"schema": _ref(Error), **entry["content"]["application/json"]}
    return {"description": entry["description"], "content": {"application/json": content}}


def _is(schema: Any) -> bool:
    return isinstance(schema, type) and issubclass(schema, BaseModel)


def _ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _REF.format(model=model.__name__)}


def _schemas(models: Iterable[type[BaseModel]]) -> dict[str, Any]:
    _, definitions = models_json_schema([(m, "validation") for m in models], ref_template=_REF)
    return dict(definitions.get("$defs", {}))
