"""Windows against their definition, written out position by position, and the two ways of attention against
each other."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from restora.networks.layers.windows import (
    MASKED,
    attend,
    drop_path,
    from_windows,
    relative_position_bias,
    relative_position_index,
    shift,
    shifted_window_mask,
    to_windows,
)


def test_windows_hold_neighbouring_pixels_and_go_back_together() -> None:
    x = torch.arange(2 * 6 * 9).view(2, 6, 9, 1)
    windows = to_windows(x, 3)  # 2 x 3 windows a photo
    assert windows.shape == (12, 9, 1)
    assert torch.equal(windows[4].view(3, 3), x[0, 3:6, 3:6, 0])
    assert torch.equal(windows[6].view(3, 3), x[1, :3, :3, 0])
    assert torch.equal(from_windows(windows, 3, 6, 9), x)


@pytest.mark.parametrize(("height", "width"), [(8, 12), (4, 8), (4, 4), (12, 4)])
def test_a_shifted_window_separates_what_was_apart(height: int, width: int) -> None:
    size, by = 4, 2
    mask = shifted_window_mask(height, width, size=size, by=by, like=torch.zeros(1))
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    place = torch.stack((rows, columns), dim=-1)[None]
    windows = to_windows(shift(place, by), size)  # where each position of a window came from
    for window, block in zip(mask, windows, strict=True):
        wrapped = block < by  # rolled out at the top or left and in again at the other side
        assert torch.equal(window == 0, (wrapped[:, None] == wrapped[None, :]).all(-1))
    assert set(mask.unique().tolist()) <= {0.0, MASKED}


def test_the_table_of_biases_is_read_by_displacement() -> None:
    size = 3
    table = torch.rand((2 * size - 1) ** 2, 2)
    bias = relative_position_bias(table, relative_position_index(size))
    grid = table.view(2 * size - 1, 2 * size - 1, 2)
    for p in range(size**2):
        for q in range(size**2):
            down, right = p // size - q // size, p % size - q % size
            assert torch.equal(bias[:, p, q], grid[down + size - 1, right + size - 1])


def test_overlapping_windows_read_one_entry_for_each_displacement() -> None:
    size, around = 4, 6
    index = relative_position_index(size, looked_at=around) % (size + around - 1) ** 2
    ours = torch.cartesian_prod(torch.arange(size), torch.arange(size))
    theirs = torch.cartesian_prod(torch.arange(around), torch.arange(around))
    step = theirs[None, :] - ours[:, None]  # (N,M,2)
    same_step = (step.flatten(0, 1)[:, None] == step.flatten(0, 1)[None]).all(-1)
    same_entry = index.flatten()[:, None] == index.flatten()[None]
    assert torch.equal(same_step, same_entry)


def attention_by_definition(
    q: Tensor, k: Tensor, v: Tensor, heads: int, bias: Tensor, mask: Tensor | None
) -> Tensor:
    out = torch.empty_like(q)
    width = q.shape[-1] // heads
    for window in range(q.shape[0]):
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            scores = q[window, :, part] @ k[window, :, part].T / math.sqrt(width) + bias[head]
            if mask is not None:
                scores = scores + mask[window % mask.shape[0]]
            out[window, :, part] = scores.softmax(-1) @ v[window, :, part]
    return out


def operands(width: int, masked: bool) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    """Two photos of 6 windows, 9 positions that look at 16, 2 heads."""
    generator = torch.Generator().manual_seed(width)
    draw: Callable[..., Tensor] = lambda *shape: torch.randn(shape, dtype=torch.double, generator=generator)  # noqa: E731
    mask = torch.where(draw(6, 9, 16) > 1, MASKED, 0.0).double() if masked else None
    return draw(12, 9, 2 * width), draw(12, 16, 2 * width), draw(12, 16, 2 * width), draw(2, 9, 16), mask


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("width", [5, 8])
def test_attention_is_its_definition_with_and_without_derivatives(width: int, masked: bool) -> None:
    q, k, v, bias, mask = operands(width, masked)
    expected = attention_by_definition(q, k, v, 2, bias, mask)
    with torch.no_grad():
        torch.testing.assert_close(attend(q, k, v, heads=2, bias=bias, mask=mask), expected)
    torch.testing.assert_close(attend(q, k, v, heads=2, bias=bias, mask=mask), expected)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("width", [5, 8])
def test_the_derivative_written_by_hand_is_autograds(width: int, masked: bool) -> None:
    *inputs, mask = operands(width, masked)
    for value in inputs:
        value.requires_grad_()
    q, k, v, bias = inputs
    grad = torch.randn(q.shape, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    ours = torch.autograd.grad(attend(q, k, v, heads=2, bias=bias, mask=mask), inputs, grad)
    expected = torch.autograd.grad(attention_by_definition(q, k, v, 2, bias, mask), inputs, grad)
    torch.testing.assert_close(ours, expected)


def test_stochastic_depth_drops_whole_samples_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    x = torch.ones(20000, 2, 1)
    y = drop_path(x, 0.25, training=True)
    assert y.unique().tolist() == pytest.approx([0, 4 / 3])
    assert torch.equal(y[:, 0], y[:, 1])
    assert y.mean().item() == pytest.approx(1, abs=0.02)
    assert drop_path(x, 0.25, training=False) is x
    assert drop_path(x, 0.0, training=True) is x
