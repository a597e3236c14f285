"""From a restored photo to the file that goes out: what was known stays, strength, format.

Legend: H height, W width, C channels, s scale.
"""

import threading
from typing import IO, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from restora.photos.decoding import Pixels
from restora.photos.files import Photo
from restora.serving.jobs import Job, unnamed_file
from restora.serving.photo_bytes import as_stored, preview, read, write
from restora.serving.problems import Problem

_turns = threading.BoundedSemaphore(2)
"""Encoding takes several times a photo's memory: two at a time."""


def read_mask(file: IO[bytes], photo: Photo, *, mask_upright: bool) -> Photo:
    """The mask, white where the photo is lost, as the photo's pixels are stored. Raises Problem."""
    mask = read(file)
    if mask_upright:
        mask = as_stored(mask, photo)
    if mask.pixels.shape[:2] != photo.pixels.shape[:2]:
        sizes = [f"{held.pixels.shape[1]}x{held.pixels.shape[0]}" for held in (mask, photo)]
        raise Problem(
            422, "bad-option", f"the mask is {sizes[0]} pixels, the photo {sizes[1]}: make them equal"
        )
    return mask


def keep_known(restored: Photo, photo: Photo, mask: Photo) -> Photo:
    """The photo's own numbers wherever the mask is not white."""
    if restored.pixels.shape != photo.pixels.shape:
        return restored
    lost = mask.pixels.astype(np.float32).mean(axis=2, keepdims=True) >= mask.white / 2
    return photo.replaced(cast(Pixels, np.where(lost, restored.pixels, photo.pixels)), photo.alpha)


def blended(restored: Photo, photo: Photo, strength: float) -> Photo:
    """`strength` of the way from the photo, enlarged where the result is larger, to the result."""
    height, width = restored.pixels.shape[:2]
    x = _floats(photo)
    if x.shape[-2:] != (height, width):
        x = F.interpolate(x, size=(height, width), mode="bicubic", align_corners=False).clamp_(0, 1)
    mixed = x.lerp(_floats(restored), strength).mul_(restored.white).round_().clamp_(0, restored.white)
    levels = mixed[0].permute(1, 2, 0).numpy().astype(restored.pixels.dtype)
    return restored.replaced(cast(Pixels, np.ascontiguousarray(levels)), restored.alpha)


def _floats(photo: Photo) -> Tensor:
    """(1,C,H,W) in [0,1]."""
    return torch.from_numpy(photo.pixels.astype(np.float32)).div_(photo.white).permute(2, 0, 1)[None]


def render(
    job: Job, *, format_name: str | None, strength: float | None, quality: int | None
) -> tuple[IO[bytes], str]:
    """The finished job as a file (without a name, at its start) and the name of its format.

    `preview` is a PNG for browsers. Raises Problem.
    """
    wanted = format_name or job.result_format
    amount = job.options.strength if strength is None else strength
    with _turns:
        photo, given = _kept(job, with_given=amount < 1)
        if given is not None:
            photo = blended(photo, given, amount)
        if wanted == "preview":
            data, wanted = preview(photo), "PNG"
        else:
            quality = quality or job.options.quality
            data = write(photo, wanted, quality=quality, keep_metadata=job.options.keep_metadata)
        file = unnamed_file()
        file.write(data)
    file.seek(0)
    return file, wanted


def _kept(job: Job, *, with_given: bool) -> tuple[Photo, Photo | None]:
    """The result, and the photo that it was made of."""
    try:
        with job.reading:
            return job.read_result(), read(job.upload) if with_given else None
    except ValueError as error:  # the files were closed a moment ago
        raise Problem(410, "gone", "the result is no longer kept: send the photo again") from error
