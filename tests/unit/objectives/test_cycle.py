"""CycleGAN: what each half-step teaches, the history, and that no pair is used."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from restora.keyed import KeyedGenerator
from restora.losses.adversarial import LeastSquaresLoss
from restora.networks.base import Network
from restora.networks.discriminators import PatchDiscriminator, VGGDiscriminator
from restora.networks.dncnn import DnCNN
from restora.networks.resnet_generator import ResNetGenerator
from restora.objectives.base import Setting, Step
from restora.objectives.cycle import Cycle, History, unpaired_clean
from restora.types import Batch


class Shift(Network):
    """Brighter by a learnt number."""

    in_channels = out_channels = 3

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = nn.Parameter(torch.tensor(by))

    def restore(self, x: Tensor, condition: Tensor | None) -> Tensor:
        return x + self.by


def cycle(backward: Network | None = None, **options: Any) -> Cycle:
    shown = options.pop("shown", None)
    patch = partial(PatchDiscriminator, in_channels=3, channels=4, levels=1, norm="none")
    return Cycle(
        backward=backward or Shift(-0.25),
        clean_discriminator=shown or patch(),
        degraded_discriminator=patch(),
        loss=LeastSquaresLoss(),
        optimizer=partial(torch.optim.SGD, lr=0.1),
        **options,
    )


def step(network: Network, *, unpaired: bool = True) -> Step:
    keys = torch.arange(3)
    degraded, clean = torch.rand(3, 3, 16, 16), torch.rand(3, 3, 16, 16)
    batch = Batch(clean, degraded, None, ["a", "b", "c"], keys=keys, unpaired=unpaired)
    return Step(network=network, batch=batch, progress=0.5, number=1, record=lambda *_: None)


def test_photos_come_back_from_networks_that_undo_each_other() -> None:
    now = step(Shift(0.25))
    terms = cycle(Shift(-0.25))(now)
    assert float(terms["cycle"]) == pytest.approx(0, abs=1e-5)
    assert float(terms["identity"]) == pytest.approx(0.5 * 10 * (0.25 + 0.25), rel=1e-5)
    terms = cycle(Shift(0.0))(now)
    assert float(terms["cycle"]) == pytest.approx(10 * (0.25 + 0.25), rel=1e-5)
    assert float(terms["identity"]) == pytest.approx(0.5 * 10 * 0.25, rel=1e-5)
    assert set(cycle(identity_weight=0.0)(now)) == {"adversarial", "cycle"}
    apart = cycle(Shift(0.0)).validation(now)
    assert float(apart["cycle"]) == pytest.approx(0.25, rel=1e-5)
    apart = cycle(Shift(0.0), weight=0.2).validation(now)
    assert float(apart["cycle"]) == pytest.approx(0.2 * 0.25, rel=1e-5), "as the other objectives' parts"
    assert cycle(weight=0.0).validation(now) == {}


def test_one_half_step_teaches_both_networks_and_the_other_both_discriminators() -> None:
    network, objective = DnCNN(in_channels=3, depth=3, channels=4, batch_norm=False), cycle()
    objective.discriminators.requires_grad_(False)  # as the family does for the network's half-step
    now = step(network)
    torch.stack(list(objective(now).values())).sum().backward()
    assert all(p.grad is not None for p in network.parameters())
    assert all(p.grad is not None for p in objective.partners())
    objective.discriminators.requires_grad_(True)
    network.zero_grad()
    objective.backward.zero_grad()
    loss, diagnostics = objective.own_loss(now)
    loss.backward()
    assert all(p.grad is not None for p in objective.discriminators.parameters())
    assert all(p.grad is None for p in [*network.parameters(), *objective.partners()])
    assert set(diagnostics) == {f"{a}_{b}" for a in ("clean", "degraded") for b in ("loss", "accuracy")}


class Drawing(Network):
    """Adds the noise it is given, times a learnt number."""

    in_channels = out_channels = 3
    condition_channels = 2

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = nn.Parameter(torch.tensor(by))

    def restore(self, x: Tensor, condition: Tensor | None) -> Tensor:
        assert condition is not None
        return x + self.by * condition[:, :1]


def test_a_backward_network_with_a_condition_draws_noise() -> None:
    objective, now = cycle(Drawing(0.1), identity_weight=0.5), step(Shift(0.0))
    terms = objective(now)
    noise = now.shared["cycle"]["degraded"] - now.batch.clean
    assert 0.09 < float(noise.std()) < 0.11
    assert not torch.equal(noise[0], noise[1])
    # the network keeps the noise: clean photos come back with it; what starts degraded is left out
    assert float(terms["cycle"]) == pytest.approx(10 * float(noise.abs().mean()), rel=1e-5)
    assert float(terms["identity"]) == pytest.approx(0, abs=1e-5)  # clean photos are the mean of draws
    objective.discriminators.requires_grad_(False)
    (by,) = objective.partners()
    assert torch.autograd.grad(terms["cycle"], by, allow_unused=True) == (None,)  # or it would draw little
    assert float(torch.autograd.grad(terms["adversarial"], by)[0]) != 0
    again = step(Shift(0.0))
    objective(again)
    apart = again.shared["cycle"]["degraded"] - again.batch.clean
    assert torch.allclose(apart, noise, atol=1e-6)  # a function of the keys
    again = replace(again, batch=replace(again.batch, keys=torch.arange(3) + 3))
    again.shared = {}
    objective(again)
    assert not torch.allclose(again.shared["cycle"]["degraded"] - again.batch.clean, noise, atol=1e-2)


def test_restored_photos_may_do_without_a_discriminator() -> None:
    objective, now = cycle(Drawing(0.1), restored_weight=0.0, history=2), step(Shift(0.0))
    objective(now)
    _, diagnostics = objective.own_loss(now)
    assert {*diagnostics} == {"degraded_loss", "degraded_accuracy"}
    assert {*objective.discriminators} == {"degraded"}
    assert {*now.shared["cycle"]} == {"degraded"}  # nothing else is computed
    other = cycle(Drawing(0.1), restored_weight=0.0, history=2)
    other.load_state_dict(objective.state_dict())
    assert torch.equal(other.histories["degraded"].kept, objective.histories["degraded"].kept)
    half, whole = cycle(restored_weight=0.5), cycle()
    for each in (half, whole):
        each.load_state_dict(half.state_dict())
    of_clean = [float(each(now)["adversarial"]) for each in (half, whole)]
    fake = whole.discriminators["clean"](now.shared["cycle"]["clean"])
    assert of_clean[1] - of_clean[0] == pytest.approx(0.5 * 0.5 * float((fake - 1).square().mean()), rel=1e-4)


def test_each_discriminator_knows_its_own_set() -> None:
    """One that tells brightness apart: restored photos are to be bright, degraded ones dark."""

    class Brightness(PatchDiscriminator):
        def _features(self, x: Tensor) -> list[Tensor]:
            return [x.mean((1, 2, 3), keepdim=True)]

    objective = cycle(Shift(0.0), cycle_weight=0.0)
    bright = Brightness(in_channels=3, channels=2, levels=1, norm="none")
    objective.discriminators = nn.ModuleDict({"clean": bright, "degraded": bright})
    now = step(Shift(0.0))
    objective(now)["adversarial"].backward()
    assert float(now.network.by.grad) < 0  # brighter convinces the discriminator of clean photos
    assert float(next(iter(objective.partners())).grad) < 0


def test_the_history_shows_old_translations_half_of_the_time() -> None:
    history, seen = History(10), []
    for turn in range(60):
        fakes = torch.full((4, 1, 2, 2), float(turn))
        shown = history.mix(fakes, KeyedGenerator(torch.arange(4) + 4 * turn))
        assert shown.shape == fakes.shape
        seen.append((shown[:, 0, 0, 0] < turn).float().mean())
    assert history.kept.shape == (10, 1, 2, 2)
    assert sum(seen[:2]) == 0  # while it fills, what comes is shown
    assert 0.35 < float(torch.stack(seen[5:]).mean()) < 0.65
    assert torch.equal(History(0).mix(fakes, KeyedGenerator(torch.arange(4))), fakes)


def test_the_history_is_kept_alike_under_autocast() -> None:
    """Which puts no float16 together, so that mixed precision would stop here."""
    fakes, plain, mixed = torch.rand(4, 1, 2, 2), History(6), History(6)
    for turn in range(4):
        keys = torch.arange(4) + 4 * turn
        with torch.autocast("cpu", torch.bfloat16):
            shown = mixed.mix(fakes, KeyedGenerator(keys))
        assert torch.equal(shown, plain.mix(fakes, KeyedGenerator(keys)))
        assert torch.equal(mixed.kept, plain.kept)


def test_the_history_is_part_of_a_checkpoint() -> None:
    first, other, network = cycle(history=2), cycle(history=2), Shift(0.1)
    for _ in range(2):
        now = step(network)
        first(now)
        first.own_loss(now)
    other.load_state_dict(first.state_dict())
    for name, history in first.histories.items():
        assert torch.equal(history.kept, other.histories[name].kept)
    now, again = step(network), None
    again = replace(now.batch)
    losses = []
    for objective in (first, other):
        own = Step(network=network, batch=again, progress=0.5, number=9, record=lambda *_: None)
        objective(own)
        losses.append(objective.own_loss(own)[0])
    assert torch.equal(*losses)
    cycle().load_state_dict(cycle().state_dict())  # also before there is any


def test_discriminators_learn_before_the_objective_takes_part() -> None:
    objective, now = cycle(start_step=5), step(Shift(0.1))
    assert objective(now) == {}
    loss, _ = objective.own_loss(now)
    loss.backward()
    assert all(p.grad is not None for p in objective.discriminators.parameters())
    assert objective.backward.by.grad is None


def test_pairs_are_not_used_as_pairs() -> None:
    now = step(Shift(0.0), unpaired=False)
    assert torch.equal(unpaired_clean(now), now.batch.clean[[2, 0, 1]])
    (alone, *_) = (Step(now.network, one, 0.5, 1, lambda *_: None) for one in now.batch.photos())
    assert torch.equal(unpaired_clean(alone), now.batch.clean[:1].flip(-1))
    now = step(Shift(0.0))
    assert unpaired_clean(now) is now.batch.clean


def test_what_cannot_be_combined_is_refused() -> None:
    setting = Setting(network=Shift(0.0), patch_size=48, has_clean=False, unpaired=True)
    cycle().check(setting)
    with pytest.raises(ValueError, match="data=unpaired_folder"):
        cycle().check(replace(setting, unpaired=False))
    with pytest.raises(ValueError, match=r"backward\.in_channels=3"):
        cycle(ResNetGenerator(in_channels=1, channels=4, blocks=1)).check(setting)
    cycle(Drawing(0.1)).check(setting)
    with pytest.raises(ValueError, match="restoring one none with a condition"):
        cycle().check(replace(setting, network=Drawing(0.1)))
    with pytest.raises(ValueError, match=r"adversarial_weight must be 0 or more"):
        cycle(adversarial_weight=-1.0)
    with pytest.raises(ValueError, match=r"set data\.patch_size=6"):
        cycle().check(replace(setting, patch_size=4))
    with pytest.raises(ValueError, match="the clean discriminator .* raise data.batch_size"):
        cycle(shown=VGGDiscriminator(channels=4)).check(replace(setting, patch_size=32, batch_size=1))


def test_the_generator_has_the_authors_size_and_names() -> None:
    with torch.device("meta"):
        nine, six = ResNetGenerator(), ResNetGenerator(blocks=6)
    assert sum(p.numel() for p in nine.parameters()) == 11_378_179
    names = set(nine.state_dict())
    assert {
        "model.1.weight",
        "model.10.conv_block.1.weight",
        "model.18.conv_block.5.bias",
        "model.26.bias",
    } <= names
    made = ResNetGenerator.infer_arguments(six.state_dict())
    assert made == {"in_channels": 3, "out_channels": 3, "channels": 64, "blocks": 6}


@pytest.mark.parametrize("options", [{"start_step": 2}, {"weight": 0.0}])
def test_the_discriminators_learn_while_the_network_does_not_yet_see_them(options: dict[str, Any]) -> None:
    now, objective = step(Shift(0.1)), cycle(**options)
    assert objective(now) == {}
    loss, _ = objective.own_loss(now)
    loss.backward()
    assert all(p.grad is not None for p in objective.discriminators.parameters())


@pytest.mark.parametrize("key", ["cycle_weight", "identity_weight", "adversarial_weight", "restored_weight"])
@pytest.mark.parametrize("value", [-1.0, float("inf"), float("nan")])
def test_weights_that_none_can_be_are_refused(key: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"objective\.cycle\.{key} must be 0 or more"):
        cycle(**{key: value})


def test_outputs_that_are_not_finite_are_shown_once_and_not_kept() -> None:
    history, broken = History(2), torch.full((2, 3, 4, 4), float("nan"))
    assert history.mix(broken, KeyedGenerator(torch.arange(2))).isnan().all()
    for number in range(8):  # the buffer is full: each is swapped with probability 0.5
        shown = history.mix(broken, KeyedGenerator(torch.arange(2) + number))
        assert shown.isnan().all()
    assert history.kept is not None
    assert history.kept.isfinite().all()


@pytest.mark.parametrize("key", ["weight", "start_step"])
def test_the_objective_whose_weight_or_start_is_refused_is_named(key: str) -> None:
    with pytest.raises(ValueError, match=f"the {key} of objective Cycle must be 0 or more, got -1"):
        cycle(**{key: -1})
