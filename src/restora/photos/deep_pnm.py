"""PGM and PPM files with more than 8 bits, which Pillow reduces to 8 where they have colours.

Legend: H height, W width, C channels (1 or 3).
"""

import re

import numpy as np
from numpy.typing import NDArray

_HEADER = re.compile(rb"P([2356])" + rb"(?:\s|#[^\r\n]*[\r\n])+(\d+)" * 3 + rb"(?:#[^\r\n]*[\r\n])?\s")
_KINDS = {b"2": (1, True), b"3": (3, True), b"5": (1, False), b"6": (3, False)}


def largest_value(data: bytes) -> int:
    """The value of white; 0 for files that are neither PGM nor PPM."""
    header = _HEADER.match(data)
    return 0 if header is None else int(header[4])


def decode(data: bytes) -> NDArray[np.uint16]:
    """(H,W,C), scaled to 16 bits whatever the largest value. Raises ValueError where values are missing."""
    header = _HEADER.match(data)
    assert header is not None
    channels, written_out = _KINDS[header[1]]
    width, height, white = (int(header[n]) for n in (2, 3, 4))
    if white > 65535:
        raise ValueError(f"its largest value is {white}, more than 16 bits hold")
    count = height * width * channels
    body = data[header.end() :]
    if written_out:
        text = re.sub(rb"#[^\r\n]*", b"", body).split()[:count]
        values = np.array(text, np.uint32)
    else:
        values = np.frombuffer(body, ">u2", count=min(count, len(body) // 2))
    if values.size < count:
        raise ValueError(f"image file is truncated: {values.size} of {count} values")
    scaled = (np.minimum(values.astype(np.uint32), white) * 65535 + white // 2) // white
    return scaled.astype(np.uint16).reshape(height, width, channels)
