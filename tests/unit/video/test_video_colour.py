"""Y'CbCr and RGB: the values of the recommendations, and numbers that stay."""

import pytest
import torch

from restora.video.colour import Coding, from_rgb, to_rgb

BT601 = Coding("bt601", full=False)
BT709 = Coding("bt709", full=False)
# 75% colour bars in limited range, of 8 bits, as broadcasters publish them
COLOURS = ((1, 1, 1), (1, 1, 0), (0, 1, 1), (0, 1, 0), (1, 0, 1), (1, 0, 0), (0, 0, 1))
BARS = {
    BT601: (
        *((180, 128, 128), (162, 44, 142), (131, 156, 44), (112, 72, 58)),
        *((84, 184, 198), (65, 100, 212), (35, 212, 114)),
    ),
    BT709: (
        *((180, 128, 128), (168, 44, 136), (145, 147, 44), (133, 63, 52)),
        *((63, 193, 204), (51, 109, 212), (28, 212, 120)),
    ),
}


def pixel(colour, coding):
    x = torch.tensor(colour, dtype=torch.float32).view(1, 3, 1, 1)
    return tuple(int(plane) for plane in from_rgb(x, coding))


@pytest.mark.parametrize("coding", BARS, ids=lambda coding: coding.matrix)
def test_colour_bars_have_the_published_numbers(coding):
    for colour, expected in zip(COLOURS, BARS[coding], strict=True):
        assert pixel([0.75 * part for part in colour], coding) == expected


@pytest.mark.parametrize("coding", BARS, ids=lambda coding: coding.matrix)
def test_colour_bars_are_read_as_these_colours(coding):
    for colour, numbers in zip(COLOURS, BARS[coding], strict=True):
        x = to_rgb([torch.tensor([[number]]) for number in numbers], coding).flatten()
        assert torch.allclose(x, 0.75 * torch.tensor(colour, dtype=torch.float32), atol=2 / 255)


def test_black_and_white_in_each_range_and_depth():
    for full, bits, black, white in (
        (False, 8, 16, 235),
        (True, 8, 0, 255),
        (False, 10, 64, 940),
        (True, 10, 0, 1023),
    ):
        coding = Coding("bt709", full=full, bits=bits)
        middle = 2 ** (bits - 1)
        assert pixel((0, 0, 0), coding) == (black, middle, middle)
        assert pixel((1, 1, 1), coding) == (white, middle, middle)


def frame(coding, height, width):
    """Planes of colours that exist, as the round trip changes no others: dull ones of medium brightness."""
    generator = torch.Generator().manual_seed(0)
    step = 2 ** (coding.bits - 8)
    planes = []
    for number in range(1 if coding.matrix == "grey" else 3):
        low, high = (100, 156) if number == 0 else (108, 149)
        shape = coding.plane_size(number, height, width)
        planes.append(torch.randint(low * step, high * step, shape, generator=generator))
    return planes


CODINGS = [
    Coding(matrix, full=full, bits=bits, across=across, down=down, centred=centred)
    for matrix, full, bits in (("bt601", False, 8), ("bt709", True, 8), ("bt2020", False, 10))
    for across, down in ((0, 0), (1, 0), (1, 1), (0, 1), (2, 0), (2, 2))
    for centred in (False, True)
] + [Coding("grey", full=True), Coding("grey", full=False), Coding("rgb", full=True)]


@pytest.mark.parametrize("size", [(16, 24), (4, 4)])
def test_there_and_back_keeps_every_number(size):
    for coding in CODINGS:
        planes = frame(coding, *size)
        back = from_rgb(to_rgb(planes, coding), coding)
        for number, (before, after) in enumerate(zip(planes, back, strict=True)):
            assert torch.equal(before.int(), after), (coding, number)


@pytest.mark.parametrize("size", [(15, 23), (1, 1), (2, 3), (5, 2)])
def test_odd_sizes_keep_their_luma_and_all_colour_but_the_edge(size):
    for coding in CODINGS:
        planes = frame(coding, *size)
        x = to_rgb(planes, coding)
        assert x.shape[2:] == size
        back = from_rgb(x, coding)
        assert [plane.shape for plane in back] == [plane.shape for plane in planes]
        assert torch.equal(planes[0].int(), back[0]), coding
        if coding.across < 2:
            for before, after in zip(planes[1:], back[1:], strict=True):
                assert torch.equal(before.int()[:-2, :-2], after[:-2, :-2]), coding


def test_samples_of_colour_lie_where_the_standard_says():
    """A sample of colour on the second sample of luma pairs, seen by the centre of its influence."""
    for centred, centre in ((False, 4.0), (True, 4.5)):
        coding = Coding("bt709", full=True, across=1, centred=centred)
        planes = [torch.full((1, 12), 128), torch.full((1, 6), 128), torch.full((1, 6), 128)]
        planes[2][0, 2] += 40
        red = to_rgb(planes, coding)[0, 0, 0] - 128 / 255
        assert float((red * torch.arange(12)).sum() / red.sum()) == pytest.approx(centre, abs=1e-4)


def test_numbers_beyond_white_become_white():
    x = to_rgb([torch.tensor([[250]]), torch.tensor([[128]]), torch.tensor([[128]])], BT709)
    assert torch.equal(x, torch.ones(1, 3, 1, 1))


def test_a_grey_picture_is_neutral_in_colour():
    luma, cb, cr = from_rgb(torch.full((1, 1, 6, 6), 0.5), Coding("bt601", full=False, across=1, down=1))
    assert luma.shape == (6, 6)
    assert set(luma.flatten().tolist()) == {126}
    assert set(cb.flatten().tolist()) == set(cr.flatten().tolist()) == {128}
