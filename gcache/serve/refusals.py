"""What the service says when it does not answer: an HTTP status and one sentence, in OpenAI's form."""

from __future__ import annotations

from typing import Any

from gcache.errors import ApiError, GcacheError, WriteError

#: HTTP status -> OpenAI's word for the kind of error.
TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
    500: "server_error",
    502: "upstream_error",
    503: "unavailable_error",
    504: "timeout_error",
}


class Refused(Exception):
    """A request that is not answered.

    Args:
        status: of the HTTP response.
        message: one sentence that says what is wrong and what to do.
        param: the field of the request it is about.
        code: a word for programs.
        headers: further ones of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code, self.headers = status, param, code, headers or {}
        # whatever a client sent and is quoted here: text that can be encoded, on one line
        self.message = " ".join(message.encode("utf-8", "replace").decode().split())

    def body(self, number: bool = False) -> dict[str, Any]:
        """OpenAI's form; `number`: with the status as its code, for streams, where there is no other place."""
        code: str | int | None = self.status if number and self.code is None else self.code
        kind = TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": code}}


def refused(error: BaseException) -> Refused:
    """What a client is told of an error; of a fault of ours, only that there was one."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, ApiError):
        return Refused(502, f"the API that writes for this graph failed: {error}")
    if isinstance(error, WriteError):  # nothing that a client can mend, and the path is none of its business
        return Refused(500, "the service cannot write what it keeps; its log says how")
    if isinstance(error, GcacheError):
        return Refused(400, str(error))
    return Refused(500, f"the model failed on this request ({type(error).__name__}); the server's log says how")
