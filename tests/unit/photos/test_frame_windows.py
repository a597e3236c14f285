"""Windows of frames: the neighbours of each frame, mirrored at both ends."""

from collections.abc import Iterator

import numpy as np
import pytest

from restora.photos.windows import mirrored, windows


def test_the_ends_are_mirrored_without_their_own_frame():
    assert list(windows("abcd", 3)) == [tuple("bab"), tuple("abc"), tuple("bcd"), tuple("cdc")]
    assert next(iter(windows("abcde", 5))) == tuple("cbabc")


@pytest.mark.parametrize("count", range(12))
@pytest.mark.parametrize("size", [1, 3, 5, 7])
def test_every_frame_is_a_centre_once_and_windows_are_those_of_a_padded_clip(count: int, size: int):
    found = list(windows(range(count), size))
    if count:
        padded = np.pad(np.arange(count), size // 2, mode="reflect")
        assert found == [tuple(padded[at : at + size]) for at in range(count)]
    else:
        assert found == []


def test_a_clip_of_one_frame_repeats_it():
    assert list(windows("a", 5)) == [tuple("aaaaa")]
    assert mirrored(-3, 1) == 0


def test_frames_are_read_only_as_far_ahead_as_the_window_reaches():
    read = []

    def frames() -> Iterator[int]:
        for number in range(100):
            read.append(number)
            yield number

    around = windows(frames(), 5)
    for centre in range(50):
        assert next(around)[2] == centre
        assert len(read) == centre + 3


@pytest.mark.parametrize("size", [0, 2, -1])
def test_a_window_without_a_middle_is_refused(size: int):
    with pytest.raises(ValueError, match="odd number of frames"):
        next(windows("abc", size))
