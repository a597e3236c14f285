"""Matching degraded photos with their clean partners."""

import re
from collections.abc import Sequence
from pathlib import Path

from restora.data.packing import PhotoFile
from restora.photos.errors import DataError
from restora.photos.reading import photo_size

_SCALES = (1, 2, 3, 4, 8)
_TRACK_SUFFIX = re.compile(r"x\d+[a-z]?\d*$")
"""What a degraded name may have behind its partner's: `0001x4`, `0001x4m`, `0001x4w2`."""
_LISTED = 10


def pair_up(clean: Sequence[PhotoFile], degraded: Sequence[PhotoFile]) -> list[PhotoFile]:
    """Each degraded photo with the clean one of its name. Raises `DataError` that names those left alone."""
    by_name = {photo.name: photo for photo in clean}
    pairs, alone, taken = [], [], set()
    for photo in degraded:
        name = photo.name if photo.name in by_name else _TRACK_SUFFIX.sub("", photo.name)
        if name in by_name:
            pairs.append(PhotoFile(photo.name, by_name[name].clean, photo.clean))
            taken.add(name)
        else:
            alone.append(photo.clean)
    alone += [photo.clean for photo in clean if photo.name not in taken]
    if alone:
        listed = "\n".join(f"  {path}" for path in alone[:_LISTED])
        more = f"\n  and {len(alone) - _LISTED} more" if len(alone) > _LISTED else ""
        raise DataError(
            f"{len(alone)} of {len(clean)} clean and {len(degraded)} degraded photos have no partner of the "
            f"same name:\n{listed}{more}\nAdd what is missing or take these away."
        )
    return pairs


def infer_scale(clean: Path, degraded: Path | None) -> int:
    """How many times larger the clean photo is. Raises `DataError` if by none of the usual whole numbers."""
    assert degraded is not None
    (height, width), small = photo_size(clean), photo_size(degraded)
    for scale in _SCALES:
        if (height // scale, width // scale) == small:
            return scale
    raise DataError(
        f"{degraded} is {small[1]}x{small[0]}, its clean partner {clean} is {width}x{height}: expected one "
        f"of the scales {', '.join(map(str, _SCALES))}; give photos that fit, or set data.source.scale"
    )
