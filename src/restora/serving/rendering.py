"""Makes the file of the response from a restored photo: strength, format."""

from typing import IO

from restora.artifact.photo_pixels import blended, fault_of_mask
from restora.photos.files import Photo
from restora.serving.jobs import Job, unnamed_file
from restora.serving.photo_bytes import preview, read, write
from restora.serving.problems import Problem


def read_mask(file: IO[bytes], photo: Photo, *, mask_upright: bool) -> Photo:
    """The mask, white where the photo is lost, in the orientation of the stored pixels. Raises Problem."""
    mask = read(file)
    if mask_upright:
        mask = mask.turned_like(photo)
    if mask.pixels.shape[:2] != photo.pixels.shape[:2]:
        sizes = [f"{held.pixels.shape[1]}x{held.pixels.shape[0]}" for held in (mask, photo)]
        raise Problem(
            422, "bad-option", f"the mask is {sizes[0]} pixels, the photo {sizes[1]}: make them equal"
        )
    if (fault := fault_of_mask(mask)) is not None:
        raise Problem(422, "bad-option", f"the mask {fault}")
    return mask


def render(
    job: Job,
    *,
    format_name: str | None,
    strength: float | None,
    quality: int | None,
    keep_metadata: bool | None = None,
) -> tuple[IO[bytes], str]:
    """The result of a finished job as a file without a name, at its start, and the name of its format.

    `preview` is a PNG for browsers; what is None is as the job's options say. Raises Problem.
    """
    keep = job.options.keep_metadata if keep_metadata is None else keep_metadata
    wanted = format_name or job.result_format
    amount = job.options.strength if strength is None else strength
    photo, given = _kept(job, with_given=amount < 1)
    if given is not None:
        photo = blended(photo, given, amount)
    if wanted == "preview":
        data, wanted = preview(photo), "PNG"
    else:
        quality = quality or job.options.quality
        data = write(photo, wanted, quality=quality, keep_metadata=keep)
    file = unnamed_file()
    file.write(data)
    file.seek(0)
    return file, wanted


def _kept(job: Job, *, with_given: bool) -> tuple[Photo, Photo | None]:
    """The result, and with `with_given` the original photo."""
    try:
        with job.reading:
            return job.read_result(), read(job.upload) if with_given else None
    except ValueError as error:  # the files were closed a moment ago
        raise Problem(410, "gone", "the result is no longer kept: send the photo again") from error
