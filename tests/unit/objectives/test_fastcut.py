"""FastCUT: what each half-step teaches, what its contrast compares, and which networks it takes."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from restora.losses.adversarial import LeastSquaresLoss
from restora.networks.base import Network
from restora.networks.discriminators import PatchDiscriminator
from restora.networks.dncnn import DnCNN
from restora.networks.ffdnet import FFDNet
from restora.networks.nafnet import NAFNet
from restora.networks.resnet_generator import ResNetGenerator
from restora.networks.unet import UNet
from restora.objectives.base import Setting, Step
from restora.objectives.fastcut import FastCut, _features, _ran
from restora.types import Batch

AUTHORS = ("model.4", "model.7", "model.10", "model.14")
"""The authors' taps of their ResNet generator: both strided convolutions, the first and the fifth block."""


def setting(network: Network) -> Setting:
    return Setting(network=network, patch_size=48, has_clean=False, unpaired=True)


def fastcut(network: Network, **options: Any) -> FastCut:
    objective = FastCut(
        discriminator=PatchDiscriminator(in_channels=3, channels=4, levels=1, norm="none"),
        loss=LeastSquaresLoss(),
        optimizer=partial(torch.optim.SGD, lr=0.1),
        **{"places": 32, "features": 16, **options},
    )
    objective.check(setting(network))
    return objective


def small() -> ResNetGenerator:
    return ResNetGenerator(channels=4, blocks=2)


def step(network: Network, *, keys: int = 0, clean: Tensor | None = None) -> Step:
    generator = torch.Generator().manual_seed(3)
    degraded = torch.rand(3, 3, 24, 32, generator=generator)
    clean = torch.rand(3, 3, 24, 32, generator=generator) if clean is None else clean
    batch = Batch(clean, degraded, None, ["a", "b", "c"], keys=torch.arange(3) + keys, unpaired=True)
    return Step(network=network, batch=batch, progress=0.5, number=1, record=lambda *_: None)


class Same(Network):
    """The photo itself, by way of a convolution that leaves it as it is."""

    in_channels = out_channels = 3

    def __init__(self) -> None:
        super().__init__()
        self.same = nn.Conv2d(3, 3, 1, bias=False)
        nn.init.dirac_(self.same.weight)

    def restore(self, x: Tensor, condition: Tensor | None) -> Tensor:
        return self.same(x)


def test_one_half_step_teaches_network_and_heads_and_the_other_the_discriminator() -> None:
    network = small()
    objective = fastcut(network)
    objective.discriminator.requires_grad_(False)  # as the family does for the network's half-step
    now = step(network)
    torch.stack(list(objective(now).values())).sum().backward()
    learnt = [*network.parameters(), *objective.partners()]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in learnt if p.ndim > 1)
    assert all(p.grad is None for p in objective.discriminator.parameters())
    objective.discriminator.requires_grad_(True)
    network.zero_grad()
    objective.heads.zero_grad()
    loss, diagnostics = objective.own_loss(now)
    loss.backward()
    assert all(p.grad is not None for p in objective.discriminator.parameters())
    assert all(p.grad is None for p in learnt)
    assert set(diagnostics) == {"loss", "accuracy"}


def test_the_contrast_is_least_where_places_keep_what_they_are() -> None:
    """Of an unchanged photo every place is known; of a shuffled one, none: as by chance or worse."""

    class Shuffled(Same):
        def restore(self, x: Tensor, condition: Tensor | None) -> Tensor:
            return self.same(x).roll(7, -1).flip(-2)

    kept, lost = Same(), Shuffled()
    chance = float(torch.tensor(32.0).log())
    with torch.no_grad():
        known = float(fastcut(kept, temperature=0.01).contrast(step(kept), flips=False))
        unknown = float(fastcut(lost, temperature=0.01).contrast(step(lost), flips=False))
    assert known < 0.9 * chance < chance < unknown


def test_autocast_does_not_round_the_similarities() -> None:
    """Features that are exact in bfloat16 have the contrast of float32."""
    network = Same()
    objective, now = fastcut(network, temperature=0.01), step(network)
    photo = now.degraded.bfloat16().float()
    now.batch.degraded.copy_(photo)
    contrasts = []
    for mixed in (False, True):
        now._outputs[:] = [photo]
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
            contrasts.append(objective.contrast(now, flips=False))
    assert torch.allclose(*contrasts, rtol=1e-4)


def test_flips_ask_for_features_that_turn_with_the_photo() -> None:
    """For a pointwise network a mirrored photo has mirrored features, so flips change nothing; for one that
    knows left from right they do."""

    class Sided(Same):
        def restore(self, x: Tensor, condition: Tensor | None) -> Tensor:
            return self.same(x + torch.linspace(0, 1, x.shape[-1]))

    for network, alike in ((Same(), True), (Sided(), False)):
        torch.manual_seed(0)
        objective = fastcut(network)
        now = step(network)
        values = [objective.contrast(now, flips=flips) for flips in (False, True)]
        assert torch.allclose(*values, atol=1e-6) == alike


def test_it_runs_no_further_than_the_last_feature_and_sees_the_authors_layers() -> None:
    network = ResNetGenerator(channels=4, blocks=9)
    objective = fastcut(network, layers=AUTHORS[::-1])
    assert objective.taps == AUTHORS
    assert [head[0].in_features for head in objective.heads] == [3, 8, 16, 16, 16]
    ran: list[str] = []
    for name, module in network.named_modules():
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
    features = _features(network, torch.rand(1, 3, 32, 32), objective.taps)
    assert [tuple(one.shape[1:]) for one in features] == [(8, 16, 16), (16, 8, 8), (16, 8, 8), (16, 8, 8)]
    assert "model.14" in ran
    assert "model.15" not in ran
    assert "" not in ran


@pytest.mark.parametrize(
    "network",
    [
        DnCNN(in_channels=3, depth=5, channels=6, batch_norm=True),
        NAFNet(width=8, encoder_blocks=[1, 1], middle_blocks=1, decoder_blocks=[1, 1]),
        UNet(channels=[8, 16]),
    ],
    ids=lambda network: type(network).__name__,
)
def test_it_finds_layers_in_other_networks(network: Network) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    objective = fastcut(network)
    order = list(_ran(network))
    places = [order.index(name) for name in objective.taps]
    assert 1 <= len(places) <= 4
    assert places == sorted(places)
    assert places[-1] < 0.7 * len(order)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.training
    assert torch.stack(list(objective(step(network)).values())).sum().isfinite()
    whole = objective.validation(step(network))
    assert set(whole) == {"adversarial", "contrast"}
    objective.weight = 0.5
    for name, term in objective.validation(step(network)).items():
        assert float(term) == pytest.approx(0.5 * float(whole[name]), rel=1e-5)


def test_its_random_numbers_are_the_samples_own_and_clean_photos_are_no_partners() -> None:
    network = small()
    objective = fastcut(network)
    with torch.no_grad():
        first, again = (objective(step(network)) for _ in range(2))
        other = objective(step(network, keys=9))
        spoilt = objective(step(network, clean=torch.zeros(3, 3, 24, 32)))
    assert torch.equal(first["contrast"], again["contrast"])
    assert not torch.equal(first["contrast"], other["contrast"])
    assert torch.equal(first["contrast"], spoilt["contrast"])


def test_heads_are_part_of_a_checkpoint() -> None:
    network = small()
    first, other = fastcut(network), fastcut(network)
    now = step(network)
    with torch.no_grad():
        assert not torch.equal(first(now)["contrast"], other(now)["contrast"])
        other.load_state_dict(first.state_dict())
        assert torch.equal(first(now)["contrast"], other(now)["contrast"])


def test_what_cannot_be_combined_is_refused() -> None:
    network = small()
    with pytest.raises(ValueError, match="data=unpaired_folder"):
        fastcut(network).check(replace(setting(network), unpaired=False))
    with pytest.raises(ValueError, match="without condition"):
        fastcut(FFDNet(in_channels=3, depth=3, channels=8))
    with pytest.raises(ValueError, match=r"no module 'model\.99' .* it runs model\.0, model\.1"):
        fastcut(network, layers=["model.99"])
    with pytest.raises(ValueError, match=r"set data\.patch_size=6"):
        fastcut(network).check(replace(setting(network), patch_size=4))
    with pytest.raises(ValueError, match="each once"):
        fastcut(network, layers=["model.4", "model.4"])
    with pytest.raises(ValueError, match="temperature must be above 0"):
        fastcut(network, temperature=0.0)
