"""Adversarial losses against values computed by hand, and who is pulled where."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restora.losses.adversarial import (
    AdversarialLoss,
    HingeLoss,
    LeastSquaresLoss,
    RelativisticAverageLoss,
    VanillaLoss,
    WassersteinLoss,
)

REAL, FAKE = torch.tensor([[2.0], [0.5]]), torch.tensor([[-1.0], [0.25]])
ALL = [
    VanillaLoss(),
    LeastSquaresLoss(),
    HingeLoss(),
    WassersteinLoss(),
    *(RelativisticAverageLoss(kind=kind) for kind in ("vanilla", "least_squares", "hinge")),  # type: ignore[arg-type]
]


def log_sigmoid(x: float) -> float:
    return -math.log(1 + math.exp(-x))


BY_HAND = [
    (
        VanillaLoss(),
        -(log_sigmoid(-1.0) + log_sigmoid(0.25)) / 2,
        -(log_sigmoid(2.0) + log_sigmoid(0.5)) / 2 - (log_sigmoid(1.0) + log_sigmoid(-0.25)) / 2,
    ),
    (LeastSquaresLoss(), (4 + 0.5625) / 4, (1 + 0.25) / 4 + (1 + 0.0625) / 4),
    (HingeLoss(), 0.375, (0 + 0.5) / 2 + (0 + 1.25) / 2),
    (WassersteinLoss(), 0.375, -0.375 - 1.25),
    # the means are 1.25 and -0.375: relative logits 2.375, 0.875 and -2.25, -1
    (RelativisticAverageLoss(kind="hinge"), (3.375 + 1.875) / 2 + (3.25 + 2) / 2, (0 + 0.125) / 2 + 0),
    (
        RelativisticAverageLoss(kind="least_squares"),
        (3.375**2 + 1.875**2) / 2 + (3.25**2 + 2**2) / 2,
        (1.375**2 + 0.125**2) / 2 + (1.25**2 + 0) / 2,
    ),
]


@pytest.mark.parametrize(("loss", "generator", "discriminator"), BY_HAND, ids=lambda v: type(v).__name__)
def test_values_by_hand(loss: AdversarialLoss, generator: float, discriminator: float) -> None:
    assert loss.generator(REAL, FAKE).item() == pytest.approx(generator, rel=1e-6)
    assert loss.discriminator(REAL, FAKE).item() == pytest.approx(discriminator, rel=1e-6)


def test_the_relativistic_loss_is_esrgans() -> None:
    """Equations 1 and 2 with D(x, y) = sigmoid(C(x) - mean C(y)), as cross-entropies."""
    real, fake = torch.randn(5, 1, 3, 3), torch.randn(5, 1, 3, 3)
    relative_real, relative_fake = real - fake.mean(), fake - real.mean()

    def cross_entropy(logits: Tensor, label: float) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))

    loss = RelativisticAverageLoss()
    expected = cross_entropy(relative_real, 1) + cross_entropy(relative_fake, 0)
    torch.testing.assert_close(loss.discriminator(real, fake), expected)
    expected = cross_entropy(relative_real, 0) + cross_entropy(relative_fake, 1)
    torch.testing.assert_close(loss.generator(real, fake), expected)


@pytest.mark.parametrize("loss", ALL, ids=lambda loss: type(loss).__name__)
def test_the_two_players_pull_in_opposite_directions(loss: AdversarialLoss) -> None:
    real = torch.tensor([[0.3], [-0.2]], requires_grad=True)
    fake = torch.tensor([[0.1], [0.4]], requires_grad=True)
    (towards,) = torch.autograd.grad(loss.generator(real.detach(), fake), fake)
    assert (towards < 0).all()  # descending raises the logits of restored photos
    of_real, of_fake = torch.autograd.grad(loss.discriminator(real, fake), (real, fake))
    assert (of_real < 0).all()
    assert (of_fake > 0).all()


@pytest.mark.parametrize("loss", ALL, ids=lambda loss: type(loss).__name__)
def test_logits_stay_finite_where_a_side_has_won(loss: AdversarialLoss) -> None:
    for real, fake in ((200.0, -200.0), (-200.0, 200.0)):
        pair = torch.full((2, 1), real), torch.full((2, 1), fake)
        assert loss.generator(*pair).isfinite()
        assert loss.discriminator(*pair).isfinite()


class Linear(nn.Module):
    """A critic whose gradient is its weight, everywhere."""

    def __init__(self, length: float) -> None:
        super().__init__()
        weight = torch.randn(3, 4, 5)
        self.weight = nn.Parameter(length * weight / weight.norm())

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.weight).sum((1, 2, 3)).unsqueeze(1)


@pytest.mark.parametrize("length", [0.25, 1.0, 3.0])
def test_the_gradient_penalty_of_a_linear_critic(length: float) -> None:
    critic = Linear(length)
    real, fake = torch.rand(2, 6, 3, 4, 5)
    penalty = WassersteinLoss(penalty_weight=7).penalty(critic, real, fake)
    assert penalty.item() == pytest.approx(7 * (length - 1) ** 2, abs=1e-5)
    penalty.backward()
    expected = 7 * 2 * (length - 1) * critic.weight.detach() / length
    torch.testing.assert_close(critic.weight.grad, expected, atol=1e-4, rtol=1e-4)


def test_the_penalty_is_taken_between_the_photos() -> None:
    seen = []

    class Recorder(Linear):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x.detach())
            return super().forward(x)

    real, fake = torch.full((64, 3, 4, 5), 2.0), torch.full((64, 3, 4, 5), 1.0)
    WassersteinLoss().penalty(Recorder(1.0), real, fake)
    at = seen[0].flatten(1)
    assert (at.std(1) == 0).all()  # one place on the line per photo
    assert at.min() >= 1
    assert at.max() <= 2
    assert at[:, 0].std() > 0.2  # uniform: 0.289


def test_only_the_penalised_loss_asks_for_a_penalty() -> None:
    for loss in (VanillaLoss(), WassersteinLoss(penalty_weight=0)):
        assert loss.penalty(nn.Identity(), REAL, FAKE).item() == 0


def test_unknown_kinds_are_named() -> None:
    with pytest.raises(ValueError, match="vanilla, least_squares, hinge; got 'wasserstein'"):
        RelativisticAverageLoss(kind="wasserstein")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="0 or more, got -1"):
        WassersteinLoss(penalty_weight=-1)
