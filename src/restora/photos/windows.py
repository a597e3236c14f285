"""Windows of frames around each frame of a clip, for networks that restore a frame from its neighbours.

The clip is read once and never held: a window keeps as many frames as it has. Beyond both ends the clip is
mirrored without repeating its first and last frame, so that the centre is never its own neighbour where there
is another frame.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def mirrored(index: int, count: int) -> int:
    """The number of the frame that stands for number `index`, which may be before or after all `count`."""
    if count == 1:
        return 0
    index %= 2 * (count - 1)
    return min(index, 2 * (count - 1) - index)


def windows(frames: Iterable[T], size: int) -> Iterator[tuple[T, ...]]:
    """One window of `size` frames per frame, which is in its middle; `size` is odd.

    Reads `size // 2` frames ahead.
    """
    if size < 1 or size % 2 == 0:
        raise ValueError(f"a window has an odd number of frames, got {size}")
    radius = size // 2
    held: deque[T] = deque(maxlen=size)
    read = 0
    for frame in frames:
        held.append(frame)
        read += 1
        if read > radius:  # no window so far has reached the end, so that mirroring is at the start alone
            yield _around(read - 1 - radius, radius, held, first=read - len(held), count=read)
    for centre in range(max(read - radius, 0), read):
        yield _around(centre, radius, held, first=read - len(held), count=read)


def _around(centre: int, radius: int, held: deque[T], *, first: int, count: int) -> tuple[T, ...]:
    """The window around a frame; `held` starts with the frame `first` and ends with the last of `count`."""
    return tuple(held[mirrored(at, count) - first] for at in range(centre - radius, centre + radius + 1))
