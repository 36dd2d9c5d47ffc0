"""Every error a caller can act on: status, type, code and message.

GovorError
├── InvalidRequest        400  invalid_request_error
│   ├── PayloadTooLarge   413
│   ├── UnsupportedMedia  415
│   └── Unprocessable     422
├── Unauthenticated       401  authentication_error
├── Forbidden             403  permission_error
├── NotFound              404  not_found_error
├── MethodNotAllowed      405  invalid_request_error
├── Conflict              409  invalid_request_error
├── RateLimited           429  rate_limit_error      (Retry-After)
├── Overloaded            503  overloaded_error      (Retry-After)
├── DeadlineExceeded      504  timeout_error
├── RequestTimeout        408  timeout_error
├── Unavailable           503  server_error          (Retry-After)
└── InternalError         500  server_error

One handler renders them (`govor.service`), one client function reads them back (`from_body`), so
that an error keeps its meaning across any number of services.
"""

from __future__ import annotations

from typing import Any


class GovorError(Exception):
    """Something the caller should know.

    `code` is stable and machine-readable, `param` names the offending field if there is one, and
    `retry_after` (seconds) is sent as `Retry-After`.
    """

    status = 500
    type = "server_error"
    code = "internal_error"
    retry_after: float | None = None

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        if code is not None:
            self.code = code
        if retry_after is not None:
            self.retry_after = retry_after

    def body(self) -> dict[str, Any]:
        """The error as it goes over the wire."""
        error = {
            "message": self.message,
            "type": self.type,
            "param": self.param,
            "code": self.code,
        }
        return {"error": error}


class InvalidRequest(GovorError):
    status, type, code = 400, "invalid_request_error", "invalid_request"


class PayloadTooLarge(InvalidRequest):
    status, code = 413, "payload_too_large"


class UnsupportedMedia(InvalidRequest):
    status, code = 415, "unsupported_media_type"


class Unprocessable(InvalidRequest):
    status, code = 422, "invalid_value"


class Unauthenticated(GovorError):
    status, type, code = 401, "authentication_error", "invalid_key"


class Forbidden(GovorError):
    status, type, code = 403, "permission_error", "scope_required"


class NotFound(GovorError):
    status, type, code = 404, "not_found_error", "not_found"


class MethodNotAllowed(InvalidRequest):
    """`allow` are the methods that the path has, sent as `Allow`."""

    status, code = 405, "method_not_allowed"
    allow: tuple[str, ...] = ()


class Conflict(InvalidRequest):
    status, code = 409, "conflict"


class RequestTimeout(GovorError):
    status, type, code = 408, "timeout_error", "request_timeout"


class RateLimited(GovorError):
    status, type, code = 429, "rate_limit_error", "rate_limited"
    retry_after = 1.0


class Overloaded(GovorError):
    status, type, code = 503, "overloaded_error", "overloaded"
    retry_after = 1.0


class Unavailable(GovorError):
    status, type, code = 503, "server_error", "unavailable"
    retry_after = 2.0


class DeadlineExceeded(GovorError):
    status, type, code = 504, "timeout_error", "deadline_exceeded"


class InternalError(GovorError):
    pass


_BY_STATUS: dict[int, type[GovorError]] = {
    kind.status: kind
    for kind in (
        InvalidRequest,
        Unauthenticated,
        Forbidden,
        NotFound,
        MethodNotAllowed,
        RequestTimeout,
        Conflict,
        PayloadTooLarge,
        UnsupportedMedia,
        Unprocessable,
        RateLimited,
        InternalError,
        DeadlineExceeded,
    )
}


def from_body(status: int, body: Any, retry_after: float | None = None) -> GovorError:
    """The error that a sibling service answered, as the same class it raised."""
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        error = {}
    kind = _BY_STATUS.get(status, InternalError)
    if status == 503:
        kind = Overloaded if error.get("type") == Overloaded.type else Unavailable
    return kind(
        str(error.get("message") or f"the service answered {status}"),
        code=error.get("code"),
        param=error.get("param"),
        retry_after=retry_after,
    )
