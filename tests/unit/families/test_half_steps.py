"""Training steps in halves: the network's, and that of each objective with parameters of its own."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from torch import nn

from restora.families.base import Family
from restora.families.gan import GanFamily
from restora.losses.adversarial import VanillaLoss, WassersteinLoss
from restora.networks.discriminators import PatchDiscriminator
from restora.networks.dncnn import DnCNN
from restora.networks.srresnet import SRResNet
from restora.objectives.adversarial import Adversarial, FeatureMatching
from restora.objectives.base import Opponent, Step
from restora.objectives.supervised import Supervised
from restora.training.schedules import Constant


def gan(**changes: Any) -> GanFamily:
    torch.manual_seed(0)
    options = {
        "discriminator": PatchDiscriminator(in_channels=3, channels=8, levels=1, norm="none"),
        "loss": VanillaLoss(),
        "optimizer": partial(torch.optim.Adam, lr=1e-2),
        "weight": 0.1,
    }
    start = changes.get("start_step", 0)
    return GanFamily(
        network=SRResNet(scale=1, in_channels=3, channels=8, blocks=1, batch_norm=False),
        loss=None,
        optimizer=partial(torch.optim.Adam, lr=1e-2),
        schedule=Constant(),
        objective={
            "supervised": Supervised(loss=nn.L1Loss()),
            "feature_matching": FeatureMatching(weight=0.1, start_step=start),
            "adversarial": Adversarial(**(options | changes)),
        },
    )


def test_half_steps_change_their_own_network_only(fit: Callable) -> None:
    family = gan()
    seen: dict[str, tuple[bool, bool]] = {}

    def snapshot() -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        networks = (family.network, family.opponents["adversarial"].discriminator)
        first, second = ([p.detach().clone() for p in network.parameters()] for network in networks)
        return first, second

    def watched(step: Callable, name: str) -> Callable:
        def run(*arguments: Any) -> None:
            before = snapshot()
            step(*arguments)
            pairs = zip(before, snapshot(), strict=True)
            seen[name] = tuple(any((a != b).any() for a, b in zip(x, y, strict=True)) for x, y in pairs)

        return run

    family.network_step = watched(family.network_step, "network")
    family.opponent_step = watched(family.opponent_step, "opponent")
    trainer = fit(family, steps=2)
    assert seen == {"network": (True, False), "opponent": (False, True)}
    assert trainer.global_step == 4
    assert family.steps_done() == 2
    logged = {"loss", "real", "fake", "accuracy", "gradient_norm"}
    assert {f"adversarial/{name}" for name in logged} <= set(trainer.callback_metrics)
    terms = {"objective/supervised", "objective/feature_matching", "objective/adversarial"}
    assert terms <= set(trainer.callback_metrics)
    total = sum(float(trainer.callback_metrics[name]) for name in terms)
    assert float(trainer.callback_metrics["train/loss"]) == pytest.approx(total, rel=1e-6)


def test_the_average_follows_every_half_step_of_the_network(fit: Callable) -> None:
    family = gan()
    assert family.ema is not None
    expected = [p.clone() for p in family.ema.parameters()]
    step_of_network, steps = family.network_step, iter(range(3))

    @torch.no_grad()
    def followed(*arguments: Any) -> None:
        with torch.enable_grad():
            step_of_network(*arguments)
        done = next(steps)
        for average, now in zip(expected, family.network.parameters(), strict=True):
            average.lerp_(now, 1 - (1 + done) / (10 + done))

    family.network_step = followed
    fit(family, steps=3)
    for average, wanted in zip(family.ema.parameters(), expected, strict=True):
        torch.testing.assert_close(average, wanted)


class Game(Opponent):
    """Its partner has a gradient of 1000, its own number one of 10."""

    def __init__(self) -> None:
        super().__init__()
        self.partner, self.own = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))

    def partners(self) -> list[nn.Parameter]:
        return [self.partner]

    def make_optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([self.own], lr=0.5)

    def terms(self, step: Step) -> dict[str, torch.Tensor]:
        return {"": step.restored.mean() + 1000 * self.partner.sum()}

    def own_loss(self, step: Step) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        return 10 * self.own.sum(), {}


@pytest.mark.parametrize("scaled", [False, True])
def test_all_that_an_optimiser_trains_is_clipped_by_gradients_that_are_not_scaled(
    fit: Callable, scaled: bool
) -> None:
    game, options = Game(), {}
    if scaled:
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        options = {"plugins": [MixedPrecision("16-mixed", "cpu", scaler=scaler)]}
    sgd = partial(torch.optim.SGD, lr=1.0)
    family = Family(
        network=DnCNN(in_channels=3, depth=3, channels=8),
        loss=None,
        optimizer=sgd,
        schedule=Constant(),
        objective={"game": game},
        gradient_clip=0.01,
    )
    trainer = fit(family, steps=1, **options)
    assert 1 - game.partner.item() == pytest.approx(0.01, rel=1e-3)
    assert 1 - game.own.item() == pytest.approx(0.5 * 0.01, rel=1e-3)
    assert float(trainer.callback_metrics["game/gradient_norm"]) == pytest.approx(10, rel=1e-3)
    # the network's rate, not the opponent's
    assert float(trainer.callback_metrics["train/learning_rate"]) == 1.0


def test_optimisers_of_a_gan_step_outside_autocast(fit: Callable) -> None:
    """Products of matrices in bfloat16 make Muon's iteration diverge."""
    seen = []

    class Watched(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            seen.append(torch.is_autocast_enabled("cpu"))
            return super().step(closure)

    family = gan(optimizer=partial(Watched, lr=1e-3))
    family.make_optimizer = partial(Watched, lr=1e-3)
    fit(family, steps=2, precision="bf16-mixed")
    assert seen == [False] * len(seen)
    assert len(seen) >= 2


def test_a_term_joins_at_its_step_while_the_discriminator_already_learns(fit: Callable) -> None:
    trainer = fit(gan(start_step=2), steps=2)
    assert "objective/adversarial" not in trainer.callback_metrics
    assert "objective/feature_matching" not in trainer.callback_metrics
    assert "adversarial/loss" in trainer.callback_metrics
    assert "objective/adversarial" in fit(gan(start_step=1), steps=2).callback_metrics


def test_conditional_discriminator_sees_the_degraded_photo_too(fit: Callable) -> None:
    shown = PatchDiscriminator(in_channels=6, channels=8, levels=1, norm="none")
    fit(gan(discriminator=shown, conditional=True, loss=WassersteinLoss()), steps=1)
