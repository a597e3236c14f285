"""A small photo, degraded as a model expects: it warms the model up, and the page shows the result.

The portrait is of Eileen Collins, by NASA (public domain).
"""

import io
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from restora.keyed import KeyedGenerator
from restora.photos.files import Metadata, Photo

SIDE = 128
_KEY = 5


@cache
def portrait() -> Image.Image:
    """The clean photo, 128x128."""
    file = files("restora.serving") / "page" / "examples" / "portrait.webp"
    return Image.open(io.BytesIO(file.read_bytes())).convert("RGB")


def example(task: str, undoes: Callable[..., Any] | None = None) -> tuple[Photo, Photo | None]:
    """The degraded portrait, and for `inpaint` the mask of the lost pixels. Unknown tasks get noise.

    `undoes` is the degradation that the model was trained against, if known.
    """
    clean = portrait()
    if task == "old_photo" and undoes is not None:
        return _photo(_by(undoes, clean)), None
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
    if task in ("colour", "old_photo"):
        return _photo(ImageEnhance.Contrast(ImageEnhance.Color(clean).enhance(0.4)).enhance(0.5)), None
    noise = np.random.default_rng(0).normal(0, 25, (SIDE, SIDE, 3))
    return _photo(Image.fromarray(_levels(np.asarray(clean) + noise))), None


def scratches() -> Image.Image:
    """The mask of a torn photo: white lines."""
    mask = Image.new("L", (SIDE, SIDE), 0)
    pen = ImageDraw.Draw(mask)
    pen.line((12, 20, 60, 48, 78, 90, 120, 112), fill=255, width=4)
    pen.line((100, 8, 84, 52, 92, 84), fill=255, width=3)
    pen.line((8, 104, 44, 96, 70, 118), fill=255, width=3)
    return mask


def _by(degradation: Callable[..., Any], photo: Image.Image) -> Image.Image:
    """The degraded photo, always with the same random numbers."""
    clean = torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None].float() / 255
    spoilt, _ = degradation(clean, KeyedGenerator(torch.tensor([_KEY])))
    return Image.fromarray(_levels(spoilt[0].permute(1, 2, 0).double().numpy() * 255))


def _photo(image: Image.Image) -> Photo:
    values = np.array(image)
    return Photo(np.atleast_3d(values), None, Metadata())


def _levels(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    return values.round().clip(0, 255).astype(np.uint8)
