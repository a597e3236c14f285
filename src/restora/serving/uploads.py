"""Makes a job from a multipart form of limited size and duration; no file gets a name from the form."""

import asyncio
import hashlib
import shutil
from collections.abc import AsyncGenerator, Collection
from contextlib import suppress
from typing import IO, Any

from fastapi import Request
from python_multipart.exceptions import MultipartParseError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from restora.photos.files import Header
from restora.photos.names import readable
from restora.serving.jobs import Job, Options, unnamed_file
from restora.serving.limits import Limits
from restora.serving.models import ServedModel
from restora.serving.photo_bytes import COPY_AGAIN, WRITABLE, check_quality, format_of_result, look
from restora.serving.problems import Problem

FORM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["photo"],
    "properties": {
        "photo": {"type": "string", "format": "binary", "description": "The file, at its full quality."},
        "mask": {
            "type": "string",
            "format": "binary",
            "description": "White where pixels are missing; for inpainting models. The other pixels stay "
            "identical in a lossless `format` such as png; JPEG compresses all of them again.",
        },
        "model": {"type": "string", "description": "A name from GET /v1/models (default: the first one)."},
        "strength": {
            "type": "number",
            "minimum": 0,
            "maximum": 1,
            "default": 1,
            "description": "Below 1, the original photo is blended in.",
        },
        "sigma": {
            "oneOf": [
                {"type": "number", "minimum": 0, "maximum": 255},
                {"type": "string", "enum": ["auto"]},
            ],
            "description": "Noise level (8-bit scale), for models that are conditioned on it; `auto` "
            "estimates that of the photo.",
        },
        "format": {
            "type": "string",
            "enum": sorted(WRITABLE),
            "description": "Format of the result (default: that of the photo).",
        },
        "quality": {
            "type": "integer",
            "minimum": 1,
            "maximum": 100,
            "description": "Quality of a result that is JPEG, AVIF or WebP (which it makes lossy).",
        },
        "metadata": {
            "type": "string",
            "enum": ["keep", "strip"],
            "default": "keep",
            "description": "Whether the result has the photo's date, place, camera and the like.",
        },
        "mask_orientation": {
            "type": "string",
            "enum": ["stored", "upright"],
            "default": "stored",
            "description": "Whether the mask is oriented like the stored pixels, or upright as EXIF says.",
        },
        "name": {
            "type": "string",
            "description": "Name of the download, without its ending (default: that of the uploaded file).",
        },
    },
}
FIELDS = frozenset(FORM_SCHEMA["properties"])
PREVIEW_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["photo"],
    "properties": {"photo": FORM_SCHEMA["properties"]["photo"]},
}


def digest_of(form: FormData) -> bytes:
    """A hash of all fields and of the files' contents, whose positions are then at their starts."""
    made = hashlib.blake2b(digest_size=16)
    for name, value in sorted(form.multi_items(), key=lambda item: item[0]):
        made.update(f"\n{name}\n".encode())
        if isinstance(value, str):
            made.update(value.encode(errors="surrogatepass"))
            continue
        value.file.seek(0)
        while chunk := value.file.read(1 << 20):
            made.update(chunk)
        value.file.seek(0)
    return made.digest()


class Body:
    """The body of a request, received once, limited in bytes and seconds.

    Leaving the `with` block by a Problem receives and drops the rest, so that the client reads the response.
    """

    def __init__(self, request: Request, limits: Limits) -> None:
        self.request, self.limits = request, limits
        self.received = 0
        self._ended = False

    async def __aenter__(self) -> "Body":
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, Problem):
            await self.drain()

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The chunks as they arrive. Raises ClientDisconnect."""
        while not self._ended:
            message = await self.request.receive()
            if message["type"] == "http.disconnect":
                self._ended = True
                raise ClientDisconnect
            self._ended = not message.get("more_body", False)
            self.received += len(message.get("body", b""))
            yield message.get("body", b"")

    async def limited(self, deadline: asyncio.Timeout) -> AsyncGenerator[bytes, None]:
        """The chunks as they arrive; each moves the deadline. Raises Problem beyond the limit."""
        started = asyncio.get_running_loop().time()
        async for chunk in self.chunks():
            if self.received > self.limits.bytes:
                raise _too_many_bytes(self.limits)
            deadline.reschedule(started + self.limits.upload_deadline(self.received))
            yield chunk

    async def drain(self) -> None:
        """Receives and drops the rest.

        A client that waits for permission (Expect: 100-continue) has sent nothing, and does not have to.
        """
        if self.received == 0 and self.request.headers.get("expect", "").lower() == "100-continue":
            return
        with suppress(TimeoutError, ClientDisconnect):
            async with asyncio.timeout(self.limits.upload_seconds):
                async for _ in self.chunks():
                    if self.received > 2 * self.limits.bytes:
                        return

    async def form(self) -> FormData:
        """The parsed form. Raises Problem if it is no form, too large, too slow or incomplete."""
        headers = self.request.headers
        if not headers.get("content-type", "").lower().startswith("multipart/form-data"):
            detail = "send the photo as the field `photo` of a multipart/form-data form"
            raise Problem(415, "not-a-photo", detail)
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > self.limits.bytes:
            raise _too_many_bytes(self.limits)
        try:
            async with asyncio.timeout(self.limits.upload_deadline(0)) as deadline:
                chunks = self.limited(deadline)
                parser = MultiPartParser(
                    headers, chunks, max_files=2, max_fields=len(FIELDS), max_part_size=4096
                )
                return await parser.parse()
        except TimeoutError as error:
            self._ended = True  # no further chunk is awaited
            raise _too_slow(self.limits) from error
        except ClientDisconnect as error:
            raise Problem(
                400, "bad-upload", "the connection was closed before the photo was complete"
            ) from error
        except (MultiPartException, MultipartParseError) as error:
            raise Problem(400, "bad-upload", f"the form cannot be read: {error}") from error


def _too_many_bytes(limits: Limits) -> Problem:
    detail = (
        f"the photo is larger than {limits.megabytes:g} MB: "
        "send a smaller file, or start the server with a larger --max-megabytes"
    )
    return Problem(413, "too-large", detail)


def _too_slow(limits: Limits) -> Problem:
    detail = (
        f"the upload took longer than {limits.upload_seconds:.0f} s, or fell behind "
        f"{limits.upload_kilobytes:g} kB/s: send a smaller file, or use a faster connection"
    )
    return Problem(408, "too-slow-upload", detail)


async def job_of(form: FormData, models: dict[str, ServedModel], limits: Limits) -> Job:
    """The job of a form; its photo's header is read, but the photo is not decoded. Raises Problem."""
    _check_fields(form, FIELDS)
    photo, mask = _file(form, "photo"), _file(form, "mask")
    if photo is None:
        raise Problem(422, "bad-option", "the form has no file `photo`")
    model = _model(form, models)
    options = _options(form)
    _check_conditions(model, options, has_mask=mask is not None)
    header = await run_in_threadpool(look, photo.file)
    _check_size(header, model, limits)
    check_quality(options.quality, format_of_result(header, options.format))
    if mask is not None:
        size = await run_in_threadpool(look, mask.file)
        if size.megapixels > limits.megapixels:
            raise Problem(413, "too-large", f"the mask has more than {limits.megapixels:g} megapixels")
    return Job(
        model=model,
        options=options,
        header=header,
        upload=await run_in_threadpool(_copied, photo.file),
        mask=None if mask is None else await run_in_threadpool(_copied, mask.file),
        client_name=readable(_text(form, "name") or photo.filename or "photo"),
    )


def photo_of(form: FormData, limits: Limits) -> IO[bytes]:
    """The photo of a form that has nothing else, with its header checked. Raises Problem."""
    _check_fields(form, PREVIEW_SCHEMA["properties"])
    photo = _file(form, "photo")
    if photo is None:
        raise Problem(422, "bad-option", "the form has no file `photo`")
    if look(photo.file).megapixels > limits.megapixels:
        raise Problem(413, "too-large", f"the photo has more than {limits.megapixels:g} megapixels")
    return photo.file


def _check_fields(form: FormData, fields: Collection[str]) -> None:
    names = [name for name, _ in form.multi_items()]
    for name in names:
        if name not in fields:
            raise Problem(
                422, "bad-option", f"there is no field {name!r}: fields are {', '.join(sorted(fields))}"
            )
        if name not in ("photo", "mask") and names.count(name) > 1:
            raise Problem(422, "bad-option", f"the form has {names.count(name)} fields `{name}`: send one")


def _copied(file: IO[bytes]) -> IO[bytes]:
    """A copy, because the form's own file is closed with the request."""
    file.seek(0)
    held = unnamed_file()
    shutil.copyfileobj(file, held, 1 << 20)
    return held


def _file(form: FormData, name: str) -> UploadFile | None:
    held = form.getlist(name)
    if len(held) > 1:
        raise Problem(
            422, "bad-option", f"the form has {len(held)} fields `{name}`: send one photo per request"
        )
    if not held:
        return None
    if not isinstance(held[0], UploadFile):
        raise Problem(
            422, "bad-option", f"`{name}` must be a file, it was sent as text: with curl use -F {name}=@FILE"
        )
    if held[0].size == 0:
        raise Problem(422, "bad-photo", f"the {name} is an empty file (0 bytes): {COPY_AGAIN}")
    return held[0]


def _text(form: FormData, name: str) -> str | None:
    held = form.get(name)
    if isinstance(held, UploadFile):
        raise Problem(422, "bad-option", f"`{name}` must be a word or a number, it was sent as a file")
    return held or None


def _number(form: FormData, name: str, low: float, high: float, *, also: str = "") -> float | None:
    text = _text(form, name)
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        wanted = f"a number from {low:g} to {high:g}{also}"
        raise Problem(422, "bad-option", f"`{name}` must be {wanted}, got {text!r}")
    return value


def _choice(form: FormData, name: str, choices: list[str]) -> str | None:
    text = _text(form, name)
    if text is not None and text not in choices:
        raise Problem(422, "bad-option", f"`{name}` must be one of {', '.join(choices)}, got {text!r}")
    return text


def _model(form: FormData, models: dict[str, ServedModel]) -> ServedModel:
    name = _text(form, "model")
    if name is None:
        return next(iter(models.values()))
    if name not in models:
        raise Problem(422, "bad-option", f"there is no model {name!r}: use one of {', '.join(models)}")
    return models[name]


def _options(form: FormData) -> Options:
    strength = _number(form, "strength", 0, 1)
    quality = _number(form, "quality", 1, 100)
    if quality is not None and quality != int(quality):
        raise Problem(422, "bad-option", f"`quality` must be a whole number from 1 to 100, got {quality:g}")
    wanted = _choice(form, "format", sorted(WRITABLE))
    return Options(
        strength=1.0 if strength is None else strength,
        sigma="auto" if _text(form, "sigma") == "auto" else _number(form, "sigma", 0, 255, also=" or `auto`"),
        format=None if wanted is None else WRITABLE[wanted],
        quality=None if quality is None else int(quality),
        keep_metadata=_choice(form, "metadata", ["keep", "strip"]) != "strip",
        mask_upright=_choice(form, "mask_orientation", ["stored", "upright"]) == "upright",
    )


def _check_conditions(model: ServedModel, options: Options, *, has_mask: bool) -> None:
    if has_mask and model.needs != "mask":
        raise Problem(422, "bad-option", f"the model {model.name} takes no mask: leave `mask` out")
    if not has_mask and model.needs == "mask":
        detail = f"the model {model.name} fills in pixels: send `mask`, a picture that is white there"
        raise Problem(422, "bad-option", detail)
    if options.sigma is not None and model.needs != "noise level":
        raise Problem(422, "bad-option", f"the model {model.name} takes no noise level: leave `sigma` out")
    if options.sigma is None and model.needs == "noise level" and model.restorer.sigma is None:
        raise Problem(
            422,
            "bad-option",
            f"the model {model.name} needs the noise level: send `sigma`, 0 to 255 or auto",
        )


def _check_size(header: Header, model: ServedModel, limits: Limits) -> None:
    scale = model.restorer.scale
    largest = header.megapixels * scale**2
    if largest > limits.megapixels:
        size = f"{header.width}x{header.height} pixels"
        times = (
            f" ({largest:.0f} megapixels when {scale} times enlarged)"
            if scale > 1
            else f" ({largest:.0f} megapixels)"
        )
        detail = f"the photo has {size}{times}, the limit is {limits.megapixels:g} megapixels"
        raise Problem(
            413,
            "too-large",
            f"{detail}: send a smaller one, or start the server with a larger --max-megapixels",
        )
    seconds = model.seconds(header.megapixels)
    if header.megapixels > 1 and seconds > 2 * limits.seconds:
        detail = f"the photo would take about {seconds:.0f} s, the limit is {limits.seconds:.0f} s"
        raise Problem(
            413, "too-large", f"{detail}: send a smaller one, or start the server with a larger --max-seconds"
        )
