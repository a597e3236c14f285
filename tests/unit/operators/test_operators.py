"""A is the dense matrix it stands for, At is A transposed, and prox solves its normal equations."""

import numpy as np
import pytest
import torch
from torch import Tensor

from restora.degradations.blur.filtering import filter_per_sample
from restora.image import resize
from restora.operators.base import Operator
from restora.operators.blur import Blur, BlurSubsample, MirroredBlur, edge_margins
from restora.operators.observed import operator_of
from restora.operators.pointwise import Identity, Mask, bayer
from restora.operators.resizing import Bicubic

generator = torch.Generator().manual_seed(0)
KERNEL = torch.rand(5, 5, generator=generator) ** 3
KERNEL = KERNEL / KERNEL.sum()  # not symmetric: a flipped kernel shows
LARGE = torch.rand(21, 21, generator=generator) ** 4
LARGE = LARGE / LARGE.sum()
HEIGHT, WIDTH = 12, 18
OPERATORS: dict[str, Operator] = {
    "identity": Identity(),
    "mask": Mask((torch.rand(1, 1, HEIGHT, WIDTH, generator=generator) > 0.4).float()),
    "mosaic": Mask(bayer(HEIGHT, WIDTH)),
    "blur": Blur(KERNEL),
    "blur larger than the photo": Blur(LARGE),
    "mirrored blur": MirroredBlur(KERNEL),
    "mirrored blur larger than the photo": MirroredBlur(LARGE),
    "blur and every 2nd": BlurSubsample(KERNEL, 2),
    "blur and every 3rd": BlurSubsample(KERNEL, 3),
    "bicubic by 2": Bicubic(2),
    "bicubic by 3": Bicubic(3),
}


@pytest.fixture(params=OPERATORS)
def operator(request: pytest.FixtureRequest) -> Operator:
    return OPERATORS[request.param]


def photos(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def dense(operator: Operator, channels: int = 3) -> Tensor:
    """The matrix of A, column by column: the answers to single pixels."""
    size = channels * HEIGHT * WIDTH
    units = torch.eye(size, dtype=torch.float64).view(size, channels, HEIGHT, WIDTH)
    return operator.A(units).flatten(1).T


def test_it_is_a_matrix_whose_transpose_is_at(operator: Operator) -> None:
    x = photos(1, 3, HEIGHT, WIDTH)
    matrix = dense(operator)
    y = operator.A(x)
    assert y.shape == (1, 3, HEIGHT // operator.scale, WIDTH // operator.scale)
    torch.testing.assert_close(y.flatten(), matrix @ x.flatten(), atol=1e-6, rtol=0)
    other = photos(*y.shape, seed=2)
    back = operator.At(other)
    assert back.shape == x.shape
    torch.testing.assert_close(back.flatten(), matrix.T @ other.flatten(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("rho", [3e-3, 0.5])
def test_prox_solves_its_normal_equations(operator: Operator, rho: float) -> None:
    z = photos(1, 3, HEIGHT, WIDTH)
    y = photos(*operator.A(z).shape, seed=2)
    matrix = dense(operator)
    right = matrix.T @ y.flatten() + rho * z.flatten()
    found = operator.prox(z, y, rho).flatten()
    assert (matrix.T @ (matrix @ found) + rho * found - right).abs().max() < 1e-5
    # in float32, as it is used, for several photos at once
    z, y = torch.cat((z, z.flip(1))).float(), torch.cat((y, y.flip(1))).float()
    found = operator.prox(z, y, rho)
    residual = operator.At(operator.A(found) - y) + rho * (found - z)
    assert residual.abs().max() < 1e-5


def test_a_photo_that_explains_the_observation_stays(operator: Operator) -> None:
    x = photos(1, 3, HEIGHT, WIDTH)
    torch.testing.assert_close(operator.prox(x, operator.A(x), 0.1), x, atol=1e-6, rtol=0)
    assert operator.start(operator.A(x)).shape == x.shape


def test_they_are_what_the_degradations_do() -> None:
    x = photos(2, 3, HEIGHT, WIDTH).float()
    for kernel in (KERNEL, LARGE):
        blurred = filter_per_sample(x, kernel.expand(2, -1, -1))
        torch.testing.assert_close(MirroredBlur(kernel).A(x), blurred, atol=1e-6, rtol=0)
    torch.testing.assert_close(Bicubic(3).A(x), resize(x, HEIGHT // 3, WIDTH // 3), atol=1e-6, rtol=0)
    for side in (x[..., :8], x[..., :8, :]):  # one side is long enough to be mirrored, the other is not
        long = torch.cat([side] * 3, -1 if side.shape[-1] > side.shape[-2] else -2)
        blurred = filter_per_sample(long, LARGE.expand(2, -1, -1))
        torch.testing.assert_close(MirroredBlur(LARGE).A(long), blurred, atol=1e-6, rtol=0)


def test_a_start_is_near_a_smooth_photo() -> None:
    rows, columns = torch.linspace(0.2, 0.8, 48)[:, None], torch.linspace(0, 0.2, 60)[None]
    x = (rows + columns)[None, None]
    holes = torch.ones(1, 1, 48, 60)
    holes[..., 10:30, 20:40] = 0
    for operator in (Mask(holes), Bicubic(2), BlurSubsample(KERNEL, 2), Blur(KERNEL)):
        away = (operator.start(operator.A(x)) - x)[..., 5:-5, 5:-5].abs().max()
        assert away < 0.15, type(operator).__name__
    seen = operator_of(mask=holes).start(x * holes)
    assert torch.equal(seen * holes, x * holes)


def test_a_start_fills_every_lost_pixel_however_few_are_known() -> None:
    mask = torch.zeros(1, 1, 70, 64)
    mask[..., 3, 60] = 1
    filled = Mask(mask).start(0.7 * mask.expand(1, 3, -1, -1))
    torch.testing.assert_close(filled, torch.full_like(filled, 0.7))


def test_margins_end_in_their_own_circular_blur() -> None:
    """Deconvolving with them does not ring; without them it does."""
    x = torch.linspace(0, 1, 40)[None, None, None].expand(1, 1, 40, 40).contiguous()
    kernel = torch.ones(1, 9) / 9
    kernel = torch.nn.functional.pad(kernel, (0, 0, 4, 4))
    y = MirroredBlur(kernel).A(x)
    margin = 18
    padded = edge_margins(y, kernel)
    assert padded.shape == (1, 1, 40 + 2 * margin, 40 + 2 * margin)
    assert torch.equal(padded[..., margin:-margin, margin:-margin], y)
    sharp = Blur(kernel).prox(padded, padded, 1e-3)[..., margin:-margin, margin:-margin]
    rings = Blur(kernel).prox(y, y, 1e-3)
    assert (sharp - x).abs().max() < 0.05 < 0.2 < (rings - x).abs().max()


def test_what_an_observation_carries_says_which() -> None:
    mask, kernel = torch.ones(1, 1, 4, 4), torch.from_numpy(np.ones((3, 3)) / 9)
    assert isinstance(operator_of(), Identity)
    assert isinstance(operator_of(mask=mask), Mask)
    assert isinstance(operator_of(kernel=kernel), MirroredBlur)
    assert isinstance(operator_of(kernel=kernel, scale=2), BlurSubsample)
    assert isinstance(operator_of(scale=2), Bicubic)
    with pytest.raises(ValueError, match="mask cannot be combined"):
        operator_of(mask=mask, scale=2)
    with pytest.raises(ValueError, match="rho"):
        Identity().prox(mask, mask, 0)
    with pytest.raises(ValueError, match="where it is missing"):
        Mask(mask / 2)


def test_operators_refuse_what_they_cannot_apply() -> None:
    assert Mask(torch.ones(1, 1, 4, 4, dtype=torch.bool)).mask.is_floating_point()
    for make, said in (
        (lambda: Mask(torch.ones(4, 4)), r"\(1,1,H,W\) or \(1,C,H,W\), got \(4, 4\)"),
        (lambda: Blur(KERNEL * 9), "the sum 1, got 9: divide it"),
        (lambda: Blur(KERNEL * float("nan")), "the sum 1, got nan"),
        (lambda: MirroredBlur(torch.ones(3, 3, dtype=torch.uint8)), "a float tensor"),
        (lambda: operator_of(scale=0), "a whole number >= 1, got 0"),
        (lambda: Bicubic(2.5), "a whole number >= 1, got 2.5"),  # type: ignore[arg-type]
    ):
        with pytest.raises(ValueError, match=said):
            make()
