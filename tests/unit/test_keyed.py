"""Numbers that depend on key, stream and position alone."""

import math

import pytest
import torch

from restora.keyed import KeyedGenerator, image_key, sample_key

MASK = (1 << 64) - 1


def splitmix(state: int) -> int:
    """SplitMix64 as published, on Python's own integers."""
    z = state & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def keys(count: int) -> torch.Tensor:
    return torch.tensor([sample_key(7, 0, index) for index in range(count)])


def test_bits_are_splitmix64() -> None:
    generator = KeyedGenerator(keys(3))
    for stream in (1, 2):
        drawn = generator.bits((4,))
        for key, row in zip(keys(3).tolist(), drawn.tolist(), strict=True):
            state = splitmix(key + 0x9E3779B97F4A7C15 * (2 * stream + 1))
            expected = [splitmix(state + 0x9E3779B97F4A7C15 * position) for position in range(1, 5)]
            assert [value & MASK for value in row] == expected


@pytest.mark.parametrize("draw", ["uniform", "normal"])
@pytest.mark.parametrize("size", [(), (1,), (3, 7, 11), (3, 130, 171)])
def test_a_batch_draws_what_its_parts_draw(draw: str, size: tuple[int, ...]) -> None:
    together = getattr(KeyedGenerator(keys(8)), draw)(size)
    apart = [getattr(KeyedGenerator(part), draw)(size) for part in (keys(8)[:1], keys(8)[1:4], keys(8)[4:])]
    assert together.shape == (8, *size)
    assert torch.equal(together, torch.cat(apart))


def test_few_words_and_many_are_the_same() -> None:
    """On a CPU few are made by numpy and many by torch."""
    for draw in ("bits", "uniform"):
        few, many = (getattr(KeyedGenerator(keys(3)), draw)((count,)) for count in (2, 20_000))
        half = 10_000 if draw == "uniform" else 1
        assert torch.equal(few, many[:, [0, half]])


def test_a_corner_is_that_of_the_field() -> None:
    field = KeyedGenerator(keys(3)).normal_corner((2, 31, 90), (31, 90))
    assert field.shape == (3, 2, 31, 90)
    for height, width in ((1, 1), (7, 90), (30, 41), (31, 89)):
        corner = KeyedGenerator(keys(3)).normal_corner((2, height, width), (31, 90))
        assert torch.equal(corner, field[:, :, :height, :width])
    noise = KeyedGenerator(keys(4)).normal_corner((3, 400, 300), (500, 400)).double()
    count = noise.numel()
    assert abs(noise.mean()) < 4 / math.sqrt(count)
    assert abs(noise.var() - 1) < 4 * math.sqrt(2 / count)
    below, beside, channel = (noise - noise.roll(1, axis) for axis in (2, 3, 1))
    for difference in (below, beside, channel):  # of uncorrelated numbers
        assert abs(difference.var() - 2) < 4 * math.sqrt(12 / count)


def test_draws_are_replayed_and_streams_differ() -> None:
    first, second = KeyedGenerator(keys(2)), KeyedGenerator(keys(2))
    a, b = first.uniform((100,)), first.uniform((100,))
    assert torch.equal(a, second.uniform((100,)))
    assert not torch.equal(a, b)
    assert not torch.equal(a[0], a[1])


def test_forks_do_not_depend_on_what_was_drawn() -> None:
    used, fresh = KeyedGenerator(keys(2)), KeyedGenerator(keys(2))
    used.normal((5,))
    assert torch.equal(used.fork("noise").uniform((9,)), fresh.fork("noise").uniform((9,)))
    assert not torch.equal(fresh.fork("noise").uniform((9,)), fresh.fork("blur").uniform((9,)))


def test_distributions() -> None:
    generator = KeyedGenerator(keys(16))
    u, n = generator.uniform((250_000,)).double(), generator.normal((250_000,)).double()
    count = u.numel()
    assert u.min() >= 0
    assert u.max() < 1
    assert abs(u.mean() - 0.5) < 4 * math.sqrt(1 / 12 / count)
    assert abs(u.var() - 1 / 12) < 4 * math.sqrt(1 / 180 / count)
    assert abs(n.mean()) < 4 / math.sqrt(count)
    assert abs(n.var() - 1) < 4 * math.sqrt(2 / count)
    assert abs(n.pow(4).mean() - 3) < 4 * math.sqrt(96 / count)
    # neighbours, the two halves of a word, and samples are uncorrelated
    for a, b in ((n[:, 1:], n[:, :-1]), (n[:, :125_000], n[:, 125_000:]), (n[1:], n[:-1])):
        assert abs((a * b).mean()) < 4.5 / math.sqrt(a.numel())
    # Kolmogorov-Smirnov against the normal distribution function
    ordered = n.flatten().sort().values
    gap = (torch.special.ndtr(ordered) - torch.arange(1, count + 1) / count).abs().max()
    assert gap < 1.95 / math.sqrt(count)


def test_integers_are_uniform_and_bounded() -> None:
    drawn = KeyedGenerator(keys(8)).integers(3, 10, (20_000,))
    counts = torch.bincount(drawn.flatten(), minlength=10)
    assert counts[:3].sum() == 0
    assert counts[3:].sum() == drawn.numel()
    expected = drawn.numel() / 7
    assert ((counts[3:] - expected).abs() < 5 * math.sqrt(expected)).all()
    with pytest.raises(ValueError, match="low < high"):
        KeyedGenerator(keys(1)).integers(4, 4)


def test_keys_tell_names_and_places_apart() -> None:
    assert image_key("a.png") != image_key("b.png")
    assert len({sample_key(1, epoch, index) for epoch in range(20) for index in range(50)}) == 1000
    assert image_key("baby.png") == 8_931_095_123_840_520_268  # for ever: benchmarks are keyed by it
    with pytest.raises(ValueError, match="int64"):
        KeyedGenerator(torch.zeros(3))
