"""Error responses of the server: RFC 9457 problem details that name the fix."""

from dataclasses import dataclass
from http import HTTPStatus

from restora.serving.schemas import ProblemBody

MEDIA_TYPE = "application/problem+json"
SEE_DOCS = ": the routes are listed at /docs"
"""The end of a problem's detail for programs; people are shown a link."""


@dataclass
class Problem(Exception):
    """An error response: `code` is stable and for programs, `detail` is for people.

    `retry_after` is in whole seconds.
    """

    status: int
    code: str
    detail: str
    retry_after: int | None = None

    def __post_init__(self) -> None:
        assert self.code in CODES, self.code

    def __str__(self) -> str:
        return self.detail

    def body(self) -> ProblemBody:
        """The JSON object of the response."""
        title = HTTPStatus(self.status).phrase
        held = ProblemBody(
            type=f"/docs#{self.code}",
            title=title,
            status=self.status,
            code=self.code,
            detail=self.detail,
        )
        if self.retry_after is not None:
            held["retry_after"] = self.retry_after
        return held

    def headers(self) -> dict[str, str]:
        """Headers other than the content type: when to retry, how to authenticate."""
        held = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return held | ({"WWW-Authenticate": "Bearer"} if self.status == HTTPStatus.UNAUTHORIZED else {})


CODES: dict[str, str] = {
    "bad-upload": "400: the request is not a readable multipart form, or it ended before the photo did",
    "token": "401: the server was started with a token: send Authorization: Bearer TOKEN",
    "foreign-page": "403: a page of another site or another host name: allow it with --cors or --host",
    "unknown": "404: there is no such restoration: results are deleted after a while and by a restart",
    "no-route": "404: there is no such address: the routes are listed at /docs",
    "too-slow-upload": "408: the upload of the photo took too long",
    "not-done": "409: the restoration is still waiting or running",
    "gone": "410: the restoration was cancelled",
    "too-large": "413: too many bytes or megapixels, or the restoration would take longer than allowed",
    "not-a-photo": "415: the request is not a form, or the file is not a photo in a supported format",
    "bad-photo": "422: the photo is in a supported format, but damaged or of a variant that is not supported",
    "bad-option": "422: a field or query parameter is missing, unknown or invalid, or not for this model",
    "other-request": "422: an Idempotency-Key was used before, for another photo or other options",
    "bad-request": "405 and the like: this URL does not support such a request (Allow names the methods)",
    "full": "429: the queue is full: try again after Retry-After seconds",
    "internal": "500: an internal error: the server logs its traceback, and the request may be repeated",
    "not-ready": "503: the server is warming up or stopping: try again after Retry-After seconds",
}
"""All codes of error responses."""
