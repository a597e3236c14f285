"""A small photo spoilt as a model expects it: it warms the model up, and the page shows what comes out.

The portrait is of Eileen Collins, by NASA (public domain).
"""

import io
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from restora.photos.files import Metadata, Photo

SIDE = 128


@cache
def portrait() -> Image.Image:
    """128x128, sharp."""
    file = files("restora.serving") / "page" / "examples" / "portrait.webp"
    return Image.open(io.BytesIO(file.read_bytes())).convert("RGB")


def example(task: str) -> tuple[Photo, Photo | None]:
    """The spoilt portrait, and for `inpaint` the mask of what is lost. Unknown tasks get noise."""
    clean = portrait()
    if task == "inpaint":
        mask = scratches()
        torn = Image.composite(Image.new("RGB", clean.size, "white"), clean, mask)
        return _photo(torn), _photo(mask)
    if task == "deblur":
        return _photo(clean.filter(ImageFilter.GaussianBlur(2.2))), None
    if task == "jpeg":
        out = io.BytesIO()
        clean.save(out, "JPEG", quality=8)
        return _photo(Image.open(out)), None
    if task == "super_resolution":
        return _photo(clean.resize((SIDE // 2, SIDE // 2), Image.Resampling.BICUBIC)), None
    if task == "colourise":
        return _photo(clean.convert("L").convert("RGB")), None
    if task == "colour":
        return _photo(faded(clean)), None
    if task == "old_photo":
        paper = Image.new("RGB", clean.size, (238, 224, 192))
        return _photo(Image.composite(paper, faded(clean), scratches(1))), None
    noise = np.random.default_rng(0).normal(0, 25, (SIDE, SIDE, 3))
    return _photo(Image.fromarray(_levels(np.asarray(clean) + noise))), None


def faded(photo: Image.Image) -> Image.Image:
    """With less contrast and colour."""
    return ImageEnhance.Contrast(ImageEnhance.Color(photo).enhance(0.4)).enhance(0.5)


def scratches(width: int = 3) -> Image.Image:
    """The mask of a torn photo: white lines of about `width` pixels."""
    mask = Image.new("L", (SIDE, SIDE), 0)
    pen = ImageDraw.Draw(mask)
    pen.line((12, 20, 60, 48, 78, 90, 120, 112), fill=255, width=width + 1)
    pen.line((100, 8, 84, 52, 92, 84), fill=255, width=width)
    pen.line((8, 104, 44, 96, 70, 118), fill=255, width=width)
    return mask


def _photo(image: Image.Image) -> Photo:
    values = np.array(image)
    return Photo(np.atleast_3d(values), None, Metadata())


def _levels(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    return values.round().clip(0, 255).astype(np.uint8)
