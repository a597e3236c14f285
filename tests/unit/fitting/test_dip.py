"""Deep Image Prior: the authors' network, and each task from one photo at a size that takes seconds."""

import numpy as np
import pytest
import torch
from skimage import data
from torch import Tensor

from restora.fitting.base import Problem
from restora.fitting.dip import DeepImagePrior, _Rewind, recipe_of
from restora.fitting.running import run
from restora.networks.cost import count_parameters
from restora.networks.dip_skip import DipSkip
from restora.operators.base import Operator
from restora.operators.pointwise import Identity, Mask
from restora.operators.resizing import Bicubic

SMALL = {"code_channels": 8, "channels": 24, "scales": 3, "average": 0.9}


@pytest.fixture(scope="module")
def clean() -> Tensor:
    photo = np.ascontiguousarray(data.astronaut()[20:68, 190:238])
    return torch.from_numpy(photo).permute(2, 0, 1)[None].float() / 255


def psnr(a: Tensor, b: Tensor) -> float:
    return float(-10 * torch.log10((a - b).square().mean()))


def noise(shape: torch.Size, sigma: float) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)) * sigma / 255


def test_the_network_is_the_authors() -> None:
    """Their weight count for denoising (32 planes in, 4 skips), and their numbered names."""
    with torch.device("meta"):
        network = DipSkip()
    assert count_parameters(network) == 2_217_831
    names = list(network.state_dict())
    assert names[0] == "1.0.1.1.weight"  # the first skip
    assert "1.1.1.1.weight" in names  # the first convolution downwards
    assert "1.1.7.1.1.4.1.weight" in names  # a scale below
    assert names[-1] == "9.1.bias"


def test_recipes_are_by_what_degraded_the_photo() -> None:
    photo = torch.rand(1, 3, 32, 32)
    hole = torch.ones(1, 1, 32, 32)
    hole[..., 8:24, 8:24] = 0
    scattered = (torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    operators: list[tuple[Operator, float | None, int]] = [
        (Identity(), 25, 3000), (Mask(hole), None, 6000), (Mask(scattered), None, 11000),
        (Bicubic(4), None, 2000), (Bicubic(8), None, 4000),
    ]  # fmt: skip
    for operator, sigma, steps in operators:
        assert recipe_of(Problem(photo, operator, sigma)).steps == steps
    assert recipe_of(Problem(photo, sigma=50.0)).code_noise > recipe_of(Problem(photo, sigma=25.0)).code_noise


@pytest.mark.slow
def test_noise_goes_and_the_seed_decides(clean: Tensor) -> None:
    problem = Problem(clean + noise(clean.shape, 50), sigma=50)
    fit = DeepImagePrior(steps=100, **SMALL)
    restored = run(fit, problem, seed=1).picture
    assert psnr(restored, clean) > psnr(problem.degraded.clamp(0, 1), clean) + 3
    short = DeepImagePrior(steps=3, **SMALL)
    first = run(short, problem, seed=1).picture
    torch.manual_seed(5)
    assert torch.equal(run(short, problem, seed=1).picture, first)
    assert not torch.equal(run(short, problem, seed=2).picture, first)


@pytest.mark.slow
def test_holes_are_filled_and_reduced_photos_enlarged(clean: Tensor) -> None:
    mask = torch.ones(1, 1, 48, 48)
    mask[..., 20:28, 16:30] = 0
    for operator, skips, least in ((Mask(mask), 8, 15), (Bicubic(2), 4, 20)):
        problem = Problem(operator.A(clean), operator)
        fit = DeepImagePrior(steps=80, **(SMALL | {"skip_channels": skips}))
        restored = run(fit, problem).picture
        where = (1 - mask).expand_as(clean) > 0 if isinstance(operator, Mask) else torch.ones_like(clean) > 0
        assert psnr(restored[where], clean[where]) > least
        assert psnr(operator.A(restored), problem.degraded) > 20


def test_what_lost_pixels_hold_has_no_part_in_it() -> None:
    """White scratches weigh neither on the loss nor on the PSNR by which a breakdown is noticed."""
    mask = torch.ones(1, 1, 16, 16)
    mask[..., 4:12, 6:9] = 0
    photo = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) / 2
    losses = []
    for lost in (0.0, 1.0):
        problem = Problem(torch.where(mask > 0, photo, lost), Mask(mask))
        fit = DeepImagePrior(steps=2, **(SMALL | {"scales": 2}))
        losses.append([step.loss for step in fit(problem, seed=0, device=torch.device("cpu"))])
    assert losses[0] == losses[1]


def test_a_denoiser_pulls_at_it() -> None:
    """RED's term: with a denoiser that knows only grey the answer is greyer."""
    problem = Problem(torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    spread = {}
    for weight in (0.0, 5.0):
        denoiser = _to_grey if weight else None
        fit = DeepImagePrior(steps=30, red_weight=weight, denoiser=denoiser, **(SMALL | {"scales": 2}))
        restored = run(fit, problem).picture
        spread[weight] = (restored - restored.mean((1, 2, 3), keepdim=True)).abs().mean()
    assert spread[5.0] < 0.8 * spread[0.0]


def _to_grey(x: Tensor, sigma: float) -> Tensor:
    return x.mean((1, 2, 3), keepdim=True).expand_as(x)


def test_weights_come_back_after_a_breakdown() -> None:
    network = torch.nn.Linear(1, 1)
    rewind = _Rewind(network, 5.0)
    good = network.weight.detach().clone()
    rewind(30.0)
    with torch.no_grad():
        network.weight += 1
    rewind(26.0)  # less, but no breakdown: these are kept now
    kept = network.weight.detach().clone()
    assert not torch.equal(kept, good)
    with torch.no_grad():
        network.weight += 1
    rewind(20.0)
    assert torch.equal(network.weight, kept)


def test_it_refuses_what_would_take_days() -> None:
    problem = Problem(torch.zeros(1, 1, 1000, 1600))
    with pytest.raises(ValueError, match="megapixels"):
        run(DeepImagePrior(), problem)
    with pytest.raises(ValueError, match="32x20 pixels leave nothing then: set scales=4"):
        run(DeepImagePrior(), Problem(torch.rand(1, 3, 20, 32)))
    assert run(DeepImagePrior(steps=1, channels=4, scales=4), Problem(torch.rand(1, 3, 20, 32))).step == 1
    with pytest.raises(ValueError, match="needs a denoiser"):
        DeepImagePrior(red_weight=0.1)
