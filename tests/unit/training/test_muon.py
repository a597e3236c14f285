"""Muon: orthogonal steps for matrices, Adam for the rest, and a stopped run goes on as it was."""

import copy
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from restora.families.parameter_groups import ParameterGroups
from restora.networks.base import Network
from restora.training.muon import Muon, _iterated, orthogonalise


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 12, 1))


class Twin(Network):
    """A network around one that is no network of restora."""

    in_channels, out_channels = 4, 12

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def restore(self, x: Tensor, condition: Tensor | None) -> Tensor:
        return self.inner(x)


def step(module: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    x = torch.randn(3, 4, 9, 9, generator=torch.Generator().manual_seed(seed))
    optimizer.zero_grad()
    module(x).square().mean().backward()
    optimizer.step()


def test_the_rate_of_the_rest_follows_the_rate_unless_it_is_given() -> None:
    """So that a tenth of `lr`, or a rate for another batch, slows all weights down."""
    weights = [nn.Parameter(torch.zeros(8, 8)), nn.Parameter(torch.zeros(8))]
    for given, expected in (({}, 2e-3), ({"lr": 5e-4}, 2e-4), ({"lr": 5e-4, "rest_lr": 2e-3}, 2e-3)):
        optimizer = Muon(weights, **given)
        rates = {group["kind"]: group["lr"] for group in optimizer.param_groups}
        assert rates["matrix"] == given.get("lr", 5e-3)
        assert rates["rest"] == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(3, 6, 20), (2, 20, 6), (1, 7, 7)])
def test_singular_values_come_near_one(shape: tuple[int, ...]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalise(matrices))
    assert values.min() > 0.5
    assert values.max() < 1.3


@pytest.mark.parametrize("shape", [(3, 6, 54), (2, 54, 6), (1, 16, 32)])
@pytest.mark.parametrize("spread", [0, 5])
def test_small_matrices_give_what_the_iteration_itself_gives(shape: tuple[int, ...], spread: int) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0)).double()
    u, values, v = torch.linalg.svd(matrices, full_matrices=False)
    u = u * torch.logspace(0, -spread, values.shape[1])
    matrices = u @ v  # singular values over as many decades
    wide = matrices if shape[1] < shape[2] else matrices.mT
    expected = _iterated(wide / wide.norm(dim=(1, 2), keepdim=True))
    found = orthogonalise(matrices.float())
    bound = 1e-3 if spread else 1e-5
    assert (found - (expected if wide is matrices else expected.mT)).abs().max() < bound


def test_directions_are_kept() -> None:
    u, _, v = torch.linalg.svd(
        torch.randn(8, 30, generator=torch.Generator().manual_seed(0)), full_matrices=False
    )
    matrix = u @ torch.diag(torch.linspace(0.2, 1, 8)) @ v
    found = u.T @ orthogonalise(matrix[None])[0] @ v.T
    assert (found - torch.diag(found.diagonal())).abs().max() < 1e-4
    assert (found.diagonal() > 0.5).all()


def test_a_step_of_a_matrix_has_the_length_of_the_rate() -> None:
    module = network()
    before = module[0].weight.detach().clone()
    step(module, Muon(module.parameters(), lr=0.01), 0)
    change = (module[0].weight.detach() - before).flatten(1)  # (8,36)
    assert torch.linalg.svdvals(change).max() < 0.013
    assert torch.linalg.svdvals(change).min() > 0.005


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_what_is_no_matrix_is_stepped_as_adam_does(decay: float) -> None:
    ours = network()
    optimizer = Muon(ours.parameters(), lr=0.0, rest_lr=1e-2, weight_decay=decay)
    theirs = copy.deepcopy(ours)
    rest = [p for p in theirs.parameters() if p.ndim == 1 or p.shape[1] == 1]
    adam = torch.optim.AdamW(rest, lr=1e-2, betas=(0.9, 0.95), weight_decay=decay)
    for seed in range(3):
        step(ours, optimizer, seed)
        step(theirs, adam, seed)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_depthwise_kernels_biases_and_small_matrices_are_not_orthogonalised() -> None:
    shapes = [tuple(p.shape) for p in Muon(network().parameters()).param_groups[0]["params"]]
    assert shapes == [(8, 4, 3, 3), (12, 8, 1, 1)]
    groups = Muon(network().parameters(), smallest=13).param_groups
    assert [group["kind"] for group in groups] == ["rest"]


def test_a_loaded_state_goes_on_bit_for_bit() -> None:
    first = network()
    optimizer = Muon(first.parameters())
    for seed in range(2):
        step(first, optimizer, seed)
    second = copy.deepcopy(first)
    resumed = Muon(second.parameters())
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for seed in range(2, 4):
        step(first, optimizer, seed)
        step(second, resumed, seed)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_parameters_without_gradient_are_left_alone() -> None:
    module = network()
    frozen: Tensor = module[3].weight.detach().clone()
    module[3].requires_grad_(False)
    step(module, Muon(module.parameters()), 0)
    assert torch.equal(module[3].weight, frozen)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lr": -1.0}, r"family\.optimizer\.lr must be a number of 0 or more"),
        ({"rest_lr": -1.0}, r"family\.optimizer\.rest_lr"),
        ({"momentum": 1.0}, r"family\.optimizer\.momentum"),
    ],
)
def test_impossible_rates_are_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Muon(network().parameters(), **arguments)


def test_what_an_objective_learns_is_stepped_by_adam() -> None:
    """Beside a network whose matrices are stepped by Muon, in the same optimiser."""
    own, partner = network(), network()
    groups = ParameterGroups(Twin(own), freeze=[], rate_factors={})
    optimizer = groups.optimizer(partial(Muon, lr=0.01, rest_lr=1e-2), [*partner.parameters()])
    theirs = copy.deepcopy(partner)
    adam = torch.optim.Adam(theirs.parameters(), lr=1e-2, betas=(0.9, 0.95))
    before = own[0].weight.detach().clone()
    for seed in range(3):
        optimizer.zero_grad()
        x = torch.randn(3, 4, 9, 9, generator=torch.Generator().manual_seed(seed))
        (own(x).square().mean() + partner(x).square().mean()).backward()
        optimizer.step()
        step(theirs, adam, seed)
    for mine, other in zip(partner.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other)
    assert torch.linalg.svdvals((own[0].weight.detach() - before).flatten(1)).min() > 0.005
    plain = groups.optimizer(torch.optim.Adam, [*partner.parameters()])
    assert len(plain.param_groups) == 1  # as checkpoints of other optimisers have them
