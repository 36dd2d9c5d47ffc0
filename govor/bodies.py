"""The body of a request as it arrives: counted, timed, and read as bytes, a form or a model."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, get_origin

from pydantic import BaseModel, ValidationError
from python_multipart.exceptions import FormParserError
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import FormParser, MultiPartException, MultiPartParser
from starlette.types import Receive, Scope

from govor.door import has_body
from govor.errors import (
    InvalidRequest,
    PayloadTooLarge,
    RequestTimeout,
    Unprocessable,
    UnsupportedMedia,
)

M = TypeVar("M", bound=BaseModel)

# What a form may hold.
_FIELDS, _FILES, _FIELD_BYTES = 64, 4, 64 << 10

Fields = dict[str, str | list[str]]


class Disconnected(Exception):
    """The caller went away; nobody reads the answer."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A file of a form, whole."""

    filename: str | None
    content_type: str
    data: bytes


class Body:
    """Reads the body once, in one of its ways. `pending` until the last byte has come."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._scope = scope
        self._receive = receive
        self._headers: Mapping[str, str] = scope["state"]["headers"]
        self.media = media_type(self._headers.get("content-type"))
        self.pending = has_body(self._headers)

    async def read(self, limit: int, deadline: float) -> bytes:
        """The whole body, at most `limit` bytes of it, by `deadline` (`time.monotonic()`).

        Raises `PayloadTooLarge`, whatever the headers say, `RequestTimeout`, `Disconnected`.
        """
        return b"".join([chunk async for chunk in self._chunks(limit, deadline)])

    async def form(self, limit: int, deadline: float) -> tuple[Fields, dict[str, Upload]]:
        """The fields and files of a form. A repeated field, or one named `x[]`, is a list.

        Raises as `read` does, and `UnsupportedMedia`, `InvalidRequest` (`invalid_form`).
        """
        fields: Fields = {}
        files: dict[str, Upload] = {}
        try:
            items = (await self._parser(limit, deadline).parse()).multi_items()
        except (MultiPartException, FormParserError, ValueError, KeyError) as error:
            raise InvalidRequest(f"the form cannot be read: {error}", code="invalid_form") from None
        for name, value in items:
            if isinstance(value, UploadFile):
                kind = media_type(value.content_type)
                files[name] = Upload(value.filename, kind, await value.read())
                await value.close()
            else:
                _add(fields, name, value)
        return fields, files

    def _parser(self, limit: int, deadline: float) -> MultiPartParser | FormParser:
        headers, chunks = Headers(scope=self._scope), self._chunks(limit, deadline)
        if self.media == "application/x-www-form-urlencoded":
            return FormParser(headers, chunks, max_fields=_FIELDS, max_part_size=_FIELD_BYTES)
        if self.media != "multipart/form-data":
            raise UnsupportedMedia("send a form: multipart/form-data")
        parser = MultiPartParser(
            headers, chunks, max_files=_FILES, max_fields=_FIELDS, max_part_size=_FIELD_BYTES
        )
        parser.spool_max_size = limit  # in memory: never larger than the limit
        return parser

    async def _chunks(self, limit: int, deadline: float) -> AsyncGenerator[bytes, None]:
        announced, size = self._headers.get("content-length", ""), 0
        if announced.isdecimal() and int(announced) > limit:
            raise PayloadTooLarge(f"the body is over {limit} bytes")
        while self.pending:
            try:
                async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                    message = await self._receive()
            except TimeoutError:
                raise RequestTimeout("the body did not arrive in time") from None
            if message["type"] == "http.disconnect":
                raise Disconnected
            self.pending = message.get("more_body", False)
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > limit:
                raise PayloadTooLarge(f"the body is over {limit} bytes")
            if chunk:
                yield chunk


def parse_json(model: type[M], data: bytes) -> M:
    """A JSON body as a model. Raises 400 `invalid_json`, or 422 with the field in `param`."""
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        raise _invalid(error) from None


def parse_fields(model: type[M], given: Mapping[str, Any]) -> M:
    """Form fields or query parameters as a model; one value does for a list. Raises 422."""
    values = dict(given)
    for name, spec in model.model_fields.items():
        if isinstance(values.get(name), str) and get_origin(spec.annotation) is list:
            values[name] = [values[name]]
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise _invalid(error) from None


def media_type(content_type: str | None) -> str:
    """A `Content-Type` without its parameters."""
    return (content_type or "").split(";")[0].strip().lower()


def _invalid(error: ValidationError) -> InvalidRequest:
    """What pydantic found first, as an error that names the field."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        return InvalidRequest(first["msg"], code="invalid_json")
    param = ".".join(str(part) for part in first["loc"])[:100]
    return Unprocessable(first["msg"].removeprefix("Value error, "), param=param or None)


def _add(fields: Fields, name: str, value: str) -> None:
    bare = name.removesuffix("[]")
    known = fields.get(bare)
    if isinstance(known, list):
        known.append(value)
    elif known is not None:
        fields[bare] = [known, value]
    else:
        fields[bare] = [value] if bare != name else value
