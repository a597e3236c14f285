"""Plug and play around denoisers whose behaviour is known, and around models as they come in files."""

import itertools
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data
from skimage.restoration import denoise_tv_chambolle
from torch import Tensor

from restora.fitting.base import Fit, Problem
from restora.fitting.denoisers import LevelledDenoiser, denoiser_of
from restora.fitting.plug_and_play import (
    AlternatingDirections,
    HalfQuadraticSplitting,
    RegularisedByDenoising,
    falling,
)
from restora.fitting.running import run
from restora.image import turned, turned_back
from restora.networks.ffdnet import FFDNet
from restora.networks.ircnn import IRCNN, LEVELS
from restora.operators.base import Operator
from restora.operators.blur import BlurSubsample, MirroredBlur
from restora.operators.pointwise import Mask, bayer
from restora.operators.resizing import Bicubic

CPU = torch.device("cpu")
AT = torch.arange(-5, 6).square()
KERNEL = torch.exp(-(AT[:, None] + AT) / (2 * 1.6**2))
KERNEL = KERNEL / KERNEL.sum()
METHODS: dict[str, type[Fit]] = {
    "pnp_hqs": HalfQuadraticSplitting,
    "pnp_admm": AlternatingDirections,
    "red": RegularisedByDenoising,
}


@pytest.fixture(scope="module")
def clean() -> Tensor:
    photo = np.ascontiguousarray(data.astronaut()[20:84, 180:244])
    return torch.from_numpy(photo).permute(2, 0, 1)[None].float() / 255


def psnr(a: Tensor, b: Tensor) -> float:
    return float(-10 * torch.log10((a.clamp(0, 1) - b).square().mean()))


def total_variation(x: Tensor, sigma: float) -> Tensor:
    photo = x[0].permute(1, 2, 0).numpy()
    smooth = denoise_tv_chambolle(photo, weight=0.5 * sigma / 255, channel_axis=-1)
    return torch.from_numpy(smooth).permute(2, 0, 1)[None].float()


def noise(like: Tensor, sigma: float) -> Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(0)) * sigma / 255


@pytest.mark.parametrize("name", METHODS)
def test_each_task_is_better_than_its_start(name: str, clean: Tensor) -> None:
    hidden = (torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(1)) > 0.5).float()
    cases: dict[str, tuple[Operator, float, float]] = {
        "deblur": (MirroredBlur(KERNEL), 2.0, 1.5),
        "enlarge": (BlurSubsample(KERNEL, 2), 0.0, 0.5),
        "enlarge what bicubic reduced": (Bicubic(2), 0.0, 0.1),
        "inpaint": (Mask(hidden), 0.0, 1.0),
        "demosaic": (Mask(bayer(64, 64)), 0.0, 0.05),
    }
    for task, (operator, sigma, gain) in cases.items():
        y = operator.A(clean)
        y = y + noise(y, sigma) if sigma else y
        fit = METHODS[name](denoiser=total_variation, steps=12)  # type: ignore[call-arg]
        restored = run(fit, Problem(y, operator, sigma)).picture
        start = psnr(operator.start(y), clean)
        assert psnr(restored, clean) > start + (gain if name != "red" else 0.0), (task, start)


def test_without_noise_the_data_are_kept(clean: Tensor) -> None:
    """The weight of the prior goes to nothing with the noise: the answer explains the observation."""
    mask = (torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(1)) > 0.3).float()
    y = mask * clean
    restored = run(HalfQuadraticSplitting(denoiser=lambda x, sigma: x), Problem(y, Mask(mask), 0.0)).picture
    assert (mask * restored - y).abs().max() < 1e-3


def test_the_schedule_is_dpirs() -> None:
    levels = falling(49, 7.65, 8)
    assert levels[0] == pytest.approx(49)
    assert levels[-1] == pytest.approx(7.65)
    ratios = [b / a for a, b in itertools.pairwise(levels)]
    assert ratios == pytest.approx([ratios[0]] * 7)
    seen: list[float] = []

    def spy(x: Tensor, sigma: float) -> Tensor:
        seen.append(sigma)
        return x

    for operator, sigma, steps, last in (
        (MirroredBlur(KERNEL), 7.65, 8, 7.65),
        (Bicubic(2), 0.0, 24, 2.0),
        (Mask(torch.ones(1, 1, 8, 8)), 0.0, 40, 0.6),
    ):
        seen.clear()
        run(
            HalfQuadraticSplitting(denoiser=spy), Problem(operator.A(torch.rand(1, 1, 8, 8)), operator, sigma)
        )
        assert len(seen) == steps
        assert seen[-1] == pytest.approx(last)


def test_the_eight_turns_turn_back() -> None:
    x = torch.arange(24.0).view(1, 1, 4, 6)
    assert len({tuple(turned(x, turn).flatten().tolist()) for turn in range(8)}) == 8
    for turn in range(8):
        assert torch.equal(turned_back(turned(x, turn), turn), x)


def test_a_model_conditioned_on_the_level_is_a_denoiser(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = FFDNet(in_channels=1, depth=3, channels=8).eval()
    x = torch.rand(1, 3, 12, 14)
    torch.save(network.state_dict(), tmp_path / "ffdnet.pth")
    for given in (network, str(tmp_path / "ffdnet.pth")):
        found = denoiser_of(given, CPU)(x, 20.0)
        level = torch.full((3, 1, 12, 14), 20 / 255)
        with torch.no_grad():
            exact = network(x.transpose(0, 1), level).transpose(0, 1).clamp(0, 1)
        torch.testing.assert_close(found, exact, atol=1e-5, rtol=0)
    colour = FFDNet(in_channels=3, depth=3, channels=8)
    assert denoiser_of(colour, CPU)(x[:, :1], 20.0).shape == (1, 1, 12, 14)


def test_ircnns_file_is_25_models_by_level(tmp_path: Path) -> None:
    sets = {}
    for number in range(25):
        torch.manual_seed(number)
        sets[str(number)] = IRCNN(channels=64).state_dict()
    torch.save(sets, tmp_path / "ircnn_gray.pth")
    denoiser = denoiser_of(str(tmp_path / "ircnn_gray.pth"), CPU)
    assert isinstance(denoiser, LevelledDenoiser)
    assert tuple(denoiser.networks) == LEVELS
    assert [denoiser.level(sigma) for sigma in (0.3, 2.0, 2.1, 25, 49.9, 80)] == [2, 2, 4, 26, 50, 50]
    network = IRCNN(channels=64)
    network.load_state_dict(sets["12"])
    x = torch.rand(1, 1, 9, 9)
    torch.testing.assert_close(denoiser(x, 25.0), network(x).detach().clamp(0, 1), atol=1e-4, rtol=0)
    method = HalfQuadraticSplitting(denoiser=str(tmp_path / "ircnn_gray.pth"))
    method.prepare(CPU)
    assert len(pickle.dumps(method)) < 2000, "models are opened in each process"
    del sets["7"]
    torch.save(sets, tmp_path / "broken.pth")
    with pytest.raises(ValueError, match="set 7"):
        denoiser_of(str(tmp_path / "broken.pth"), CPU)


def test_models_of_one_level_are_a_list(tmp_path: Path) -> None:
    for level in (10, 30):
        torch.save(IRCNN(channels=8).state_dict(), tmp_path / f"{level}.pth")
    networks = {10: IRCNN(channels=8), 30: IRCNN(channels=8)}
    denoiser = denoiser_of(networks, CPU)
    assert isinstance(denoiser, LevelledDenoiser)
    assert denoiser.level(11) == 30
    with pytest.raises(ValueError, match="needs a denoiser"):
        HalfQuadraticSplitting()
    with pytest.raises(ValueError, match="noise level"):
        run(HalfQuadraticSplitting(denoiser=total_variation), Problem(torch.rand(1, 3, 8, 8)))


@pytest.mark.parametrize("name", ["pnp_hqs", "pnp_admm"])
def test_a_level_far_too_low_is_named(name: str, clean: Tensor) -> None:
    """The estimate is then far from any photo, which is no fault of the photo that was given."""
    box = torch.ones(9, 9) / 81
    problem = Problem((clean + noise(clean, 50)).clamp(0, 1), MirroredBlur(box), sigma=0.5)
    with pytest.raises(ValueError, match=r"more noise than sigma says.*--sigma LEVEL"):
        run(METHODS[name](denoiser=lambda x, _: x, steps=2), problem)
