"""The page at `/`: plain files, and the list of packs that it offers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import FileResponse
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

PUBLIC = ("/", "/static/")
"""Paths that need no key: the page asks for one itself."""

_FOLDER = Path(__file__).with_name("static")
_HEADERS = {
    # Everything is ours, nothing inline: what a bot says can never run as a script.
    "content-security-policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'self'; "
    "base-uri 'none'; form-action 'none'",
    "referrer-policy": "no-referrer",
}
_REVALIDATED = {"cache-control": "no-cache"}


def add_routes(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(_FOLDER / "index.html", headers=_HEADERS | _REVALIDATED)

    app.mount("/static/", _Files(directory=_FOLDER))


class _Files(StaticFiles):
    """Asked for again each time (304): a page must not meet the scripts of another version."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers.update(_HEADERS | _REVALIDATED)
        return response
