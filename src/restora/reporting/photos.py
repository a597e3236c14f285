"""Held-out photos for the page: every version of a photo, cropped to one size and embedded without loss.

To show restored detail, pixels are not resampled: a large photo is cropped to its centre rather than
reduced.
"""

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from restora.photos.errors import PhotoError
from restora.photos.reading import read_photo
from restora.reporting.runs import Group, PhotoScore, Run

SIDE = 512
PHOTOS_AT_MOST = 6
RUNS_AT_MOST = 12
PICTURES_AT_MOST = 168
"""Of all comparisons of a page together: noisy ones take 0.4 MB each, and a page stays below 100 MB."""


def embedded_photos(group: Group, *, groups: int = 1) -> list[dict[str, Any]]:
    """For each shown photo its name, size, note and versions, degraded first, clean last.

    A version is {id, label, psnr, ssim, uri}.

    At most 6 photos of the best 12 runs are shown, and fewer of each of many `groups`. Missing or damaged
    files are left out.
    """
    photos_at_most, runs_at_most = _share(groups)
    runs = group.scored[:runs_at_most]
    photos = []
    for name in group.photo_names[:photos_at_most]:
        photo = _photo(name, runs)
        if photo is not None:
            photos.append(photo)
    return photos


def left_out(group: Group, *, groups: int = 1) -> str:
    """Which photos and runs of a group `embedded_photos` shows, in words; empty for all of them."""
    photos, runs = _share(groups)
    parts = []
    if photos < len(group.photo_names):
        parts.append(f"{photos} of {len(group.photo_names)} photos")
    if runs < len(group.scored):
        parts.append(f"the best {runs} of {len(group.scored)} runs")
    return f"Here are {' and '.join(parts)}; all are in images/ of the run folders." if parts else ""


def _share(groups: int) -> tuple[int, int]:
    """Photos and runs that each of so many groups may show."""
    each = PICTURES_AT_MOST // max(groups, 1)
    photos = min(max(each // (RUNS_AT_MOST + 2), 1), PHOTOS_AT_MOST)
    return photos, min(
        max(each // photos - 2, 2), RUNS_AT_MOST
    )  # two versions are the degraded and the clean


def _photo(name: str, runs: Sequence[Run]) -> dict[str, Any] | None:
    clean = next(filter(None, (_open(run, name, "clean") for run in runs)), None)
    degraded = next(filter(None, (_open(run, name, "degraded") for run in runs)), None)
    if clean is None:
        return None
    scores = {run.label: next((p for p in run.photos if p.name == name), None) for run in runs}
    known = next((score for score in scores.values() if score is not None), PhotoScore(name, None, None))
    versions = []
    if degraded is not None:
        versions.append(_version("degraded", "degraded", known.input_psnr, known.input_ssim, degraded, clean))
    for index, run in enumerate(runs):
        restored, score = _open(run, name, "restored"), scores[run.label]
        if restored is not None and score is not None:
            versions.append(_version(f"run{index}", run.label, score.psnr, score.ssim, restored, clean))
    versions.append(_version("clean", "original", None, None, clean, clean))
    width, height = min(clean.width, SIDE), min(clean.height, SIDE)
    note = "" if (width, height) == clean.size else f"middle {width}×{height} of {clean.width}×{clean.height}"
    focus = _most_detailed(_middle(clean, clean))
    return {
        "name": name,
        "width": width,
        "height": height,
        "note": note,
        "focus": focus,
        "versions": versions,
    }


def _most_detailed(image: Image.Image) -> tuple[float, float]:
    """Centre, in fractions of width and height, of the window (a quarter of the side) with most edges."""
    if min(image.size) < 8:
        return 0.5, 0.5
    grey = np.asarray(image.convert("L"), dtype=np.float64)
    down, right = (np.abs(np.diff(grey, axis=axis, append=0))[:-1, :-1] for axis in (0, 1))
    edges = np.sqrt(down + right)  # many edges rather than one strong one
    window = max(1, min(edges.shape) // 4)
    sums = np.pad(edges, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    totals = (
        sums[window:, window:] - sums[:-window, window:] - sums[window:, :-window] + sums[:-window, :-window]
    )
    row, column = np.unravel_index(int(totals.argmax()), totals.shape)
    return (float(column) + window / 2) / image.width, (float(row) + window / 2) / image.height


def _open(run: Run, name: str, kind: str) -> Image.Image | None:
    try:
        return Image.fromarray(read_photo(run.picture(name, f"_{kind}.png")))
    except PhotoError:
        return None


def _version(
    key: str, label: str, psnr: float | None, ssim: float | None, image: Image.Image, clean: Image.Image
) -> dict[str, Any]:
    uri = _data_uri(_middle(image, clean))
    return {"id": key, "label": label, "psnr": psnr, "ssim": ssim, "uri": uri}


def _middle(image: Image.Image, clean: Image.Image) -> Image.Image:
    """The part of `image` that shows the centre SIDE x SIDE of `clean`; `image` may be smaller by an integer
    factor."""
    factor = max(1, round(clean.width / image.width))
    width, height = (min(side, SIDE) // factor for side in clean.size)
    left, top = ((side - SIDE) // 2 // factor if side > SIDE else 0 for side in clean.size)
    return image.crop((left, top, left + width, top + height))


def _data_uri(image: Image.Image) -> str:
    out = io.BytesIO()
    image.save(out, format="WEBP", lossless=True, quality=40, method=2)
    return f"data:image/webp;base64,{base64.b64encode(out.getvalue()).decode()}"
