"""Deep Image Prior: a network with random weights is fitted to one degraded photo, from a fixed random code.

D. Ulyanov, A. Vedaldi, V. Lempitsky, CVPR 2018, with the settings of the authors' notebooks for each task.
Structure is fitted before noise, so that a fit that stops early gives a restored photo. With `red_weight` a
denoiser regularises it (Mataev et al., "DeepRED", ICCVW 2019).

Note: 3,000 steps of a photo of 128x128 take 17 minutes of a CPU core, and time grows with the area.

Legend: C channels, H height, W width.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restora.fitting.base import (
    Fit,
    Problem,
    Step,
    check_above_zero,
    check_at_least,
    moved,
    seeded,
)
from restora.fitting.denoisers import OpenedOnce
from restora.fitting.stopping import psnr_between
from restora.networks.dip_skip import DipSkip
from restora.operators.pointwise import Mask
from restora.registry import register

_LOOKED_BACK = 100
"""Steps between two checks whether the fit has broken down."""
_BROADEST = 1.5
"""Megapixels beyond which a fit is refused: 3,000 steps would take a day of 16 cores."""


@dataclass(frozen=True)
class Recipe:
    """The authors' settings of a task; `code_noise` is added to the code anew at each step."""

    steps: int
    code_noise: float
    skip_channels: int = 4
    nearest: bool = False
    learning_rate: float = 0.01


def check_size(method: str, size: tuple[int, int], scales: int) -> None:
    """Raises ValueError for a photo (H,W) that takes days, or that is one pixel at the last scale."""
    height, width = size
    if height * width > _BROADEST * 1e6:
        raise ValueError(
            f"{method} would take days at {width}x{height} pixels: reduce the photo to less than "
            f"{_BROADEST:g} megapixels, or use another method"
        )
    if max(size) <= 2**scales:  # batch norm needs two values
        possible = (max(size) - 1).bit_length() - 1
        raise ValueError(
            f"{method} halves a photo scales={scales} times, and {width}x{height} pixels leave nothing then: "
            + (f"set scales={possible}" if possible > 0 else "use another method")
        )


def recipe_of(problem: Problem) -> Recipe:
    """The recipe for a degradation; noise above 35 (8-bit scale) and scattered holes have their own."""
    if isinstance(problem.operator, Mask):
        scattered = _scattered(problem.operator.mask)
        if scattered:
            return Recipe(11000, 0.03, skip_channels=128, nearest=True, learning_rate=0.001)
        return Recipe(6000, 0.03, skip_channels=128, nearest=True)
    if problem.operator.scale > 1:
        return Recipe(2000, 0.03) if problem.operator.scale <= 4 else Recipe(4000, 0.05)
    strong = problem.sigma is not None and problem.sigma > 35
    return Recipe(3000, 1 / 20 if strong else 1 / 30)


def _scattered(mask: Tensor) -> bool:
    """Whether most lost pixels have a known one beside them."""
    known = mask.amax(1, keepdim=True)
    lost = known == 0
    beside = F.max_pool2d(known, 3, 1, 1) > 0
    return bool((lost & beside).sum() > 0.8 * lost.sum())


@register("method", "dip")
class DeepImagePrior(Fit):
    """Settings that are null are the authors' for the task (`recipe_of`).

    The result is a moving average of the outputs, in which each step has the weight `1 - average`. If the
    PSNR to the observation drops by `fall_back` dB within 100 steps, the earlier weights are restored. With
    `early_stop` the fit ends where the outputs vary least. `red_weight` times `x (x - denoised x)` is added
    to the loss; `denoiser` (any source of a model that is conditioned on the noise level) runs at
    `red_sigma`, every `red_every` steps.
    """

    name: ClassVar[str] = "dip"
    tasks: ClassVar[tuple[str, ...]] = ("denoise", "super_resolution", "inpaint", "deblur", "jpeg")
    level_tasks: ClassVar[tuple[str, ...]] = ("denoise", "deblur")

    def __init__(
        self,
        *,
        steps: int | None = None,
        learning_rate: float | None = None,
        code_noise: float | None = None,
        code_channels: int = 32,
        channels: int = 128,
        scales: int = 5,
        skip_channels: int | None = None,
        average: float = 0.99,
        fall_back: float = 5.0,
        early_stop: bool = True,
        red_weight: float = 0.0,
        red_sigma: float = 10.0,
        red_every: int = 10,
        denoiser: Any = None,
    ) -> None:
        if not 0 <= average < 1:
            raise ValueError(
                f"dip: average (the weight of earlier outputs) must be in [0, 1), got {average:g}"
            )
        check_at_least("dip", 1, steps=steps, channels=channels, code_channels=code_channels, scales=scales)
        check_at_least("dip", 1, red_every=red_every)
        check_at_least("dip", 0, skip_channels=skip_channels, code_noise=code_noise, red_weight=red_weight)
        check_above_zero("dip", learning_rate=learning_rate, fall_back=fall_back, red_sigma=red_sigma)
        if denoiser is not None and not red_weight:
            raise ValueError(
                "dip: the denoiser has no effect with red_weight=0: set red_weight above 0, or leave it out"
            )
        self.steps, self.learning_rate, self.code_noise = steps, learning_rate, code_noise
        self.code_channels, self.channels, self.scales = code_channels, channels, scales
        self.skip_channels, self.average, self.fall_back = skip_channels, average, fall_back
        self.early_stop = early_stop
        self.denoiser = OpenedOnce(denoiser, "dip with red_weight") if red_weight else None
        self.red_weight, self.red_sigma, self.red_every = red_weight, red_sigma, red_every

    def prepare(self, device: torch.device) -> None:
        if self.denoiser is not None:
            self.denoiser.on(device)

    @property
    def stops_early(self) -> bool:
        return self.early_stop

    def __call__(self, problem: Problem, *, seed: int, device: torch.device) -> Iterator[Step]:
        check_size("dip", problem.size, self.scales)
        recipe = recipe_of(problem)
        steps = self.steps or recipe.steps
        observed = problem.degraded.to(device)
        operator = moved(problem.operator, device)
        network, code = self._start(problem, recipe, seed, device)
        rate = recipe.learning_rate if self.learning_rate is None else self.learning_rate
        optimiser = torch.optim.Adam(network.parameters(), lr=rate)
        noise = recipe.code_noise if self.code_noise is None else self.code_noise
        generator = torch.Generator(device).manual_seed(seed)
        red = _Red(self, device) if self.red_weight else None
        rewind = _Rewind(network, self.fall_back)
        total = torch.zeros(1, observed.shape[1], *problem.size, device=device)
        for number in range(1, steps + 1):
            shaken = code + noise * torch.randn(code.shape, generator=generator, device=device)
            output = network(shaken)
            explained = operator.A(output)
            loss = F.mse_loss(explained, observed)
            whole = loss if red is None else loss + red(output, number)
            optimiser.zero_grad()
            whole.backward()
            optimiser.step()
            output = output.detach()
            total = self.average * total + (1 - self.average) * output
            picture = total / (1 - self.average**number)  # bias correction, as in Adam
            if number % _LOOKED_BACK == 0:
                rewind(psnr_between(explained.detach(), observed))
            yield Step(number, steps, picture, loss.item(), output)

    def _start(
        self, problem: Problem, recipe: Recipe, seed: int, device: torch.device
    ) -> tuple[DipSkip, Tensor]:
        """The network, in training mode, and the code (1,K,H,W) of numbers from 0 to 0.1."""
        with seeded(seed):
            network = DipSkip(
                in_channels=self.code_channels,
                out_channels=problem.degraded.shape[1],
                channels=self.channels,
                scales=self.scales,
                skip_channels=recipe.skip_channels if self.skip_channels is None else self.skip_channels,
                upsampling="nearest" if recipe.nearest else "bilinear",
            )
            code = torch.rand(1, self.code_channels, *problem.size) * 0.1
        return network.to(device).train(), code.to(device)


class _Rewind:
    """Keeps the weights of the last check, and restores them if the fit has broken down since."""

    def __init__(self, network: nn.Module, drop: float) -> None:
        self.network, self.drop = network, drop
        self.weights: dict[str, Tensor] | None = None
        self.psnr = -float("inf")

    def __call__(self, psnr: float) -> None:
        if self.weights is not None and psnr < self.psnr - self.drop:
            self.network.load_state_dict(self.weights)
            return
        self.weights, self.psnr = copy.deepcopy(self.network.state_dict()), psnr


class _Red:
    """The gradient of RED's prior, `x - denoised x`, as a term of the loss; kept for some steps."""

    def __init__(self, settings: DeepImagePrior, device: torch.device) -> None:
        assert settings.denoiser is not None
        self.denoise = settings.denoiser.on(device)
        self.settings = settings
        self.residual: Tensor | None = None

    def __call__(self, output: Tensor, number: int) -> Tensor:
        if self.residual is None or number % self.settings.red_every == 0:
            seen = output.detach()
            self.residual = seen - self.denoise(seen, self.settings.red_sigma)
        return self.settings.red_weight * (output * self.residual).mean()
