"""What each objective compares, what it refuses, and that every family takes it."""

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from restora.losses.adversarial import (
    HingeLoss,
    LeastSquaresLoss,
    RelativisticAverageLoss,
    VanillaLoss,
    WassersteinLoss,
)
from restora.losses.pixel import L1Loss, SSIMLoss, WeightedSum
from restora.networks.discriminators import (
    DCGANDiscriminator,
    Discriminator,
    PatchDiscriminator,
    UNetDiscriminator,
    VGGDiscriminator,
)
from restora.networks.dncnn import DnCNN
from restora.networks.unet import UNet
from restora.objectives.adversarial import Adversarial, FeatureMatching
from restora.objectives.base import Objective, Setting, Step
from restora.objectives.distil import Distil
from restora.objectives.showing import check_patches
from restora.objectives.supervised import Masked, MultiScale, Perceptual, Supervised
from restora.types import Batch


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def dncnn(**arguments: Any) -> DnCNN:
    return DnCNN(**{"in_channels": 3, "depth": 3, "channels": 8, "batch_norm": False} | arguments)


def batch(*, size: int = 16, mask: bool = False) -> Batch:
    clean = torch.rand(2, 3, size, size)
    known = (torch.rand(2, 1, size, size) > 0.4).float() if mask else None
    return Batch(clean, (clean + 0.1 * torch.randn_like(clean)), known, ["a", "b"])


def step(network: nn.Module | None = None, data: Batch | None = None, **options: Any) -> Step:
    logged: dict[str, Tensor] = {}
    made = Step(
        network=network or dncnn(),
        batch=data or batch(),
        progress=0.5,
        number=options.pop("number", 3),
        record=logged.__setitem__,
        **options,
    )
    made.shared["logged"] = logged
    return made


def adversarial(loss: Any = None, **options: Any) -> Adversarial:
    shown = options.pop("discriminator", None) or PatchDiscriminator(
        in_channels=3, channels=4, levels=1, norm="none"
    )
    make = partial(torch.optim.SGD, lr=0.1)
    return Adversarial(discriminator=shown, loss=loss or VanillaLoss(), optimizer=make, **options)


def test_losses_see_photos_whatever_the_network_predicts() -> None:
    """A residual network under SSIM: the loss of the photos, not of the residuals."""
    now = step()
    loss = SSIMLoss()
    (value,) = Supervised(loss=loss)(now).values()
    assert float(value) == pytest.approx(float(loss(now.restored, now.supervision)))
    residuals = loss(now.restored - now.degraded, now.supervision - now.degraded)
    assert abs(float(value) - float(residuals)) > 0.05


LOSSES: dict[str, Any] = {
    "the shape .*average it": lambda restored, clean: (restored - clean).abs(),
    "a float": lambda restored, clean: float((restored - clean).abs().mean()),
    "nothing can learn from": lambda restored, clean: (restored.detach() - clean).abs().mean(),
}


@pytest.mark.parametrize("fault", LOSSES)
@pytest.mark.parametrize("objective", [Supervised, Masked, partial(MultiScale, scale_weights=[1.0])])
def test_a_loss_that_is_no_scalar_to_learn_from_is_named(
    objective: Callable[..., Objective], fault: str
) -> None:
    def mine(restored: Tensor, clean: Tensor) -> Any:
        return LOSSES[fault](restored, clean)

    with pytest.raises(ValueError, match=f"the loss mine returned .*{fault}"):
        objective(loss=mine)(step(data=batch(mask=True)))


def test_a_loss_that_takes_no_pair_of_photos_is_refused_at_once() -> None:
    class One(nn.Module):
        def forward(self, restored: Tensor) -> Tensor:
            return restored.mean()

    for objective in (Supervised, Masked, partial(Distil, teacher=dncnn())):
        with pytest.raises(
            ValueError, match=r"the loss One takes \(restored.*\).*expected \(restored, clean\)"
        ):
            objective(loss=One())


@pytest.mark.parametrize("returned", [torch.ones(()), {"": torch.ones(2)}, {"part": 1.0}])
def test_an_objective_returns_scalars_by_name(returned: Any) -> None:
    class Mine(Objective):
        def terms(self, step: Step) -> Any:
            return returned

    with pytest.raises(ValueError, match="the objective Mine returned .* expected"):
        Mine()(step())


def test_a_target_takes_the_place_of_the_clean_photo() -> None:
    plain = batch()
    target = torch.rand_like(plain.degraded)
    now = step(data=Batch(None, plain.degraded, None, plain.names, target=target))
    (value,) = Supervised(loss=nn.L1Loss())(now).values()
    assert float(value) == pytest.approx(float((now.restored - target).abs().mean()))
    with pytest.raises(ValueError, match="neither a clean version nor a target"):
        Supervised(loss=nn.L1Loss())(step(data=Batch(None, plain.degraded, None, plain.names)))


def test_weight_and_first_step_of_a_term() -> None:
    now = step()
    (one,) = Supervised(loss=nn.L1Loss())(now).values()
    (three,) = Supervised(loss=nn.L1Loss(), weight=3.0)(now).values()
    assert float(three) == pytest.approx(3 * float(one))
    assert Supervised(loss=nn.L1Loss(), weight=0)(now) == {}
    assert Supervised(loss=nn.L1Loss(), start_step=4)(now) == {}
    assert Supervised(loss=nn.L1Loss(), start_step=3)(now) != {}


def test_holes_are_weighed_by_the_mask() -> None:
    known = torch.tensor([[[[1.0, 0.0]]]])

    class Fixed(DnCNN):
        def restore(self, x: Tensor, condition: Tensor | None) -> Tensor:
            return torch.tensor([[[[1.0, 3.0]]]])

    data = Batch(torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 1, 2), known, ["a"])
    network = Fixed(in_channels=1, depth=3, channels=2)
    (value,) = Masked(loss=nn.L1Loss(), hole_weight=6.0)(step(network, data)).values()
    assert float(value) == pytest.approx((1 * 1 + 6 * 3) / 2)


def test_side_outputs_are_compared_at_their_own_size() -> None:
    network = UNet(channels=[4, 8, 8], norm="none", side_outputs=1)
    now = step(network, scales=2)
    objective = MultiScale(loss=nn.L1Loss(), scale_weights=[1.0, 0.5])
    terms = objective(now)
    full, half = network.restore_scales(now.degraded)
    clean = now.supervision
    small = nn.functional.avg_pool2d(clean, 2)
    assert float(terms["scale_1"]) == pytest.approx(float((full - clean).abs().mean()), rel=1e-5)
    assert float(terms["scale_2"]) == pytest.approx(0.5 * float((half - small).abs().mean()), rel=1e-5)
    torch.testing.assert_close(now.restored, full)  # what other objectives see
    with pytest.raises(ValueError, match=r"objective\.multi_scale\.hole_weight must be 0 or more"):
        MultiScale(loss=nn.L1Loss(), scale_weights=[1.0], hole_weight=-1.0)


def test_the_network_runs_once_for_all_objectives() -> None:
    network = dncnn()
    calls = []
    network.register_forward_hook(lambda *_: calls.append(1))
    now = step(network)
    parts: dict[str, Objective] = {
        "supervised": Supervised(loss=nn.L1Loss()),
        "adversarial": adversarial(),
        "feature_matching": FeatureMatching(),
    }
    for part in parts.values():
        part.join(parts)
    features = []
    parts["adversarial"].discriminator.register_forward_hook(lambda *_: features.append(1))
    for part in parts.values():
        part(now)
    parts["adversarial"].own_loss(now)
    assert len(calls) == 1


@pytest.mark.parametrize(
    "loss",
    [VanillaLoss(), LeastSquaresLoss(), HingeLoss(), WassersteinLoss(), RelativisticAverageLoss()],
    ids=lambda loss: type(loss).__name__,
)
def test_the_game_is_given_real_and_fake_in_that_order(loss: Any) -> None:
    """A discriminator whose logit is the mean brightness: clean photos are bright, restored ones dark."""

    class Brightness(PatchDiscriminator):
        def _features(self, x: Tensor) -> list[Tensor]:
            return [x, self.gain * (x.mean((1, 2, 3), keepdim=True) - 0.25)]

    shown = Brightness(in_channels=3, channels=2, levels=1, norm="none")
    shown.gain = nn.Parameter(torch.tensor(1.0))
    dark = torch.zeros(2, 3, 16, 16)
    now = step(data=Batch(torch.ones_like(dark), dark, None, ["a", "b"]))
    now._outputs.append(dark.clone().requires_grad_())
    part = adversarial(loss, discriminator=shown)
    (value,) = part(now).values()
    (gradient,) = torch.autograd.grad(value, now.outputs[0])
    assert (gradient < 0).all()  # brighter is what convinces
    own, diagnostics = part.own_loss(now)
    (gain,) = torch.autograd.grad(own, shown.gain)
    if not isinstance(loss, WassersteinLoss):  # whose penalty holds the slope at 1
        assert float(gain) < 0  # telling them apart more clearly is what the discriminator wants
    assert float(diagnostics["real"]) == pytest.approx(0.75)
    assert float(diagnostics["fake"]) == pytest.approx(-0.25)
    assert float(diagnostics["accuracy"]) == 1.0


def test_a_perceptual_term_is_added_beside_the_pixels() -> None:
    now = step()
    edges = Perceptual(loss=lambda a, b: (a.diff(dim=-1) - b.diff(dim=-1)).abs().mean(), weight=2.0)
    (value,) = edges(now).values()
    expected = (now.restored.diff(dim=-1) - now.supervision.diff(dim=-1)).abs().mean()
    assert float(value) == pytest.approx(2 * float(expected))


def test_distillation_follows_the_teacher_and_never_steps_it() -> None:
    teacher, student = dncnn(), dncnn()
    now = step(student, Batch(None, batch().degraded, None, ["a", "b"]))
    part = Distil(teacher=teacher, loss=nn.MSELoss())
    (value,) = part(now).values()
    aim = teacher(now.degraded).clamp(0, 1)
    assert float(value) == pytest.approx(float((now.restored - aim).square().mean()), rel=1e-5)
    value.backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert any(p.grad is not None for p in student.parameters())
    assert not list(part.parameters())  # no part of a checkpoint


def test_random_numbers_are_those_of_the_samples() -> None:
    keys = torch.tensor([5, 9])
    plain = batch()
    data = Batch(plain.clean, plain.degraded, None, plain.names, keys=keys)
    alone = Batch(plain.clean[1:], plain.degraded[1:], None, ["b"], keys=keys[1:])
    both = step(data=data).generator("mask").uniform((4,))
    assert torch.equal(both[1:], step(data=alone).generator("mask").uniform((4,)))
    assert not torch.equal(both, step(data=data).generator("other").uniform((4,)))
    with pytest.raises(ValueError, match="gives no keys"):
        step().generator("mask")
    with pytest.raises(ValueError, match="come degraded"):
        step(data=data).redegrade()


SETTING = Setting(network=dncnn(), patch_size=48)


@pytest.mark.parametrize(
    ("make", "setting", "said"),
    [
        (lambda: Masked(loss=nn.L1Loss()), SETTING, "whose condition is a mask"),
        (
            lambda: Masked(loss=nn.L1Loss()),
            Setting(network=dncnn(), patch_size=48, undamaged=(0.0,)),
            "whose condition is a mask",
        ),
        (lambda: MultiScale(loss=nn.L1Loss(), scale_weights=[1, 1]), SETTING, "no side outputs"),
        (
            lambda: MultiScale(loss=nn.L1Loss(), scale_weights=[1, 1, 1]),
            Setting(network=UNet(channels=[4, 8, 8], side_outputs=1), patch_size=48),
            r"gives 2 sizes, .* names 3: set network\.side_outputs=2",
        ),
        (adversarial, Setting(network=dncnn(in_channels=1), patch_size=48), "discriminator.in_channels=1"),
        (lambda: adversarial(conditional=True), SETTING, "discriminator.in_channels=6"),
        (
            lambda: adversarial(discriminator=VGGDiscriminator(channels=4, hidden=4)),
            Setting(network=dncnn(), patch_size=16),
            "set data.patch_size=32",
        ),
        (
            lambda: adversarial(discriminator=VGGDiscriminator(channels=4, hidden=4)),
            Setting(network=dncnn(), patch_size=32, batch_size=1),
            r"a batch of 1 with patches of 32x32 .* raise data\.batch_size or data\.patch_size, or take d",
        ),
        *[
            (
                make,
                Setting(network=dncnn(), patch_size=8),
                "SSIMLoss needs .* 11x11 .*: set data",
            )
            for make in (
                lambda: Supervised(loss=SSIMLoss()),
                lambda: Masked(loss=SSIMLoss()),
                lambda: Distil(teacher=dncnn(), loss=SSIMLoss()),
            )
        ],
        (
            lambda: Supervised(loss=WeightedSum(losses=[L1Loss(), SSIMLoss()], weights=[1, 1])),
            Setting(network=dncnn(), patch_size=10),
            "WeightedSum needs .* 11x11",
        ),
        (
            lambda: MultiScale(loss=SSIMLoss(), scale_weights=[1, 1]),
            Setting(network=UNet(channels=[4, 8, 8], side_outputs=1), patch_size=16),
            "22x22",
        ),
        (
            lambda: adversarial(
                WassersteinLoss(), discriminator=PatchDiscriminator(channels=4, levels=2, norm="batch")
            ),
            SETTING,
            "batch norm ties photos together",
        ),
        (
            lambda: Distil(teacher=dncnn(in_channels=1), loss=nn.L1Loss()),
            SETTING,
            "teacher has in_channels=1",
        ),
        (
            lambda: Perceptual(loss=nn.L1Loss()),
            Setting(network=dncnn(in_channels=9), patch_size=48),
            "1 or 3",
        ),
        (
            lambda: Supervised(loss=nn.L1Loss()),
            Setting(network=dncnn(), patch_size=48, has_clean=False),
            "these data have none",
        ),
        (
            lambda: Supervised(loss=nn.L1Loss()),
            Setting(network=dncnn(), patch_size=48, has_clean=False, unpaired=True),
            "objective=cycle or fastcut.* cycle_noise",
        ),
    ],
)
def test_what_cannot_be_combined_is_refused_with_the_reason(
    make: Callable[[], Objective], setting: Setting, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        make().check(setting)


@pytest.mark.parametrize(
    "shown",
    [
        VGGDiscriminator(channels=4, hidden=4),
        PatchDiscriminator(channels=4),
        UNetDiscriminator(channels=4),
        DCGANDiscriminator(channels=4),
    ],
    ids=lambda shown: type(shown).__name__,
)
@pytest.mark.parametrize("batch_size", [1, 2])
def test_what_is_accepted_trains_and_what_is_refused_does_not(shown: Discriminator, batch_size: int) -> None:
    before = {name: value.clone() for name, value in shown.state_dict().items()}
    for size in (shown.minimum_size, 2 * shown.minimum_size):
        refused = trained = False
        try:
            check_patches(shown, Setting(network=dncnn(), patch_size=size, batch_size=batch_size))
        except ValueError:
            refused = True
        assert all(torch.equal(value, before[name]) for name, value in shown.state_dict().items())
        try:
            copy.deepcopy(shown)(torch.rand(batch_size, 3, size, size))
            trained = True
        except ValueError:
            pass
        assert trained != refused


class Bare(Discriminator):
    """As short as one of the user's own may be."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 1, 3, padding=1)
        vars(self).update(attributes)

    def _features(self, x: Tensor) -> Any:
        return self.body(x) if vars(self).get("alone") else [self.body(x)]


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({}, r"^objective\.adversarial\.discriminator: Bare has no in_channels: set it in the constructor"),
        ({"in_channels": 1}, r"takes 1 channels and is shown photos of 3: set objective\.adversarial"),
        ({"in_channels": 3, "alone": True}, "returned a Tensor: expected a list of tensors, the logits last"),
    ],
)
def test_a_discriminator_that_breaks_its_contract_is_refused(attributes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        adversarial(discriminator=Bare(**attributes)).check(replace(SETTING, batch_size=2))


def test_features_are_not_matched_where_there_are_logits_alone() -> None:
    part = FeatureMatching()
    part.join({"adversarial": adversarial(discriminator=Bare(in_channels=3))})
    with pytest.raises(ValueError, match="Bare has logits alone"):
        part.check(SETTING)
    part.join({"adversarial": adversarial()})
    part.check(SETTING)


def test_what_can_be_combined_is_not_refused() -> None:
    mask = Setting(network=dncnn(), patch_size=48, undamaged=(1.0,))
    for part in (
        Supervised(loss=nn.L1Loss()),
        Masked(loss=nn.L1Loss()),
        MultiScale(loss=nn.L1Loss(), scale_weights=[1.0]),
        adversarial(),
        adversarial(discriminator=Bare(in_channels=3)),
        Distil(teacher=dncnn(), loss=nn.L1Loss()),
        Perceptual(loss=nn.L1Loss()),
    ):
        part.check(mask)


def test_features_are_matched_only_beside_a_discriminator() -> None:
    part = FeatureMatching()
    with pytest.raises(ValueError, match=r"objective=\[supervised,adversarial,feature_matching\]"):
        part.join({"feature_matching": part})


def test_features_are_matched_and_not_the_logits() -> None:
    part, opponent = FeatureMatching(), adversarial()
    part.join({"adversarial": opponent, "feature_matching": part})
    at = step(dncnn())
    features, real, fake = torch.rand(1, 4, 8, 8), torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4)
    at.shared["discriminator"] = [features, real], [features, fake]
    assert float(part.terms(at)[""]) == 0


def test_what_a_discriminator_says_is_no_part_of_the_validation_loss() -> None:
    """It changes from one validation to the next, and small photos would end the run."""
    parts: dict[str, Objective] = {"adversarial": adversarial(), "feature_matching": FeatureMatching()}
    for part in parts.values():
        part.join(parts)
        assert part.validation(step(dncnn())) == {}
