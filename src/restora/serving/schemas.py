"""The JSON objects of responses, as types and as schemas of the OpenAPI document."""

from typing import Literal, NotRequired

from typing_extensions import TypedDict  # pydantic refuses that of `typing` before Python 3.12

State = Literal["waiting", "running", "done", "failed", "cancelled"]


class ProblemBody(TypedDict):
    """What is wrong and how to fix it: `code` is for programs, `detail` for people."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    retry_after: NotRequired[int]


class JobPhoto(TypedDict):
    """The photo as it was sent; width and height as a viewer shows it."""

    name: str
    width: int
    height: int
    format: str
    frames: int


class JobProgress(TypedDict):
    """Tiles that are restored; `fraction` is from 0 to 1."""

    tiles_done: int
    tiles: int
    fraction: float


class JobResult(TypedDict):
    """The size of the restored photo as a viewer shows it, and the noise level that was used."""

    width: int
    height: int
    sigma: float | None


class JobLinks(TypedDict):
    """Paths on this server."""

    self: str
    events: str
    photo: str


class JobState(TypedDict):
    """A restoration; `position` is the number of photos before it while it waits."""

    id: str
    state: State
    model: str
    photo: JobPhoto
    position: int | None
    progress: JobProgress
    seconds_left: float | None
    seconds: float | None
    result: JobResult | None
    problem: ProblemBody | None
    links: JobLinks


Channels = TypedDict("Channels", {"in": int, "out": int})


class ModelState(TypedDict):
    """A model of the server; `needs` is what it is conditioned on: nothing, noise level or mask."""

    name: str
    task: str
    title: str
    description: str
    scale: int
    channels: Channels
    needs: str
    sigma: float | None
    example: str | None
    seconds_per_megapixel: float | None


class QueueState(TypedDict):
    """Waiting photos and photos that are being received, and the largest number of them."""

    length: int
    size: int


class LimitsState(TypedDict):
    """Limits on one photo, and how long results are kept."""

    megabytes: float
    megapixels: float
    seconds: float
    keep_seconds: float


class ServerState(TypedDict):
    """The models of the server, the formats that it writes, its queue and its limits."""

    ready: bool
    models: list[ModelState]
    formats: list[str]
    queue: QueueState
    limits: LimitsState


class Health(TypedDict):
    """The state of the process in a word."""

    status: str
