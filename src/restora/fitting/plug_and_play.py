"""Plug and play: a denoiser as the prior for the restoration of any linear degradation.

`pnp_hqs` is DPIR (K. Zhang et al., "Plug-and-Play Image Restoration with Deep Denoiser Prior", TPAMI 2021):
half-quadratic splitting, a data step in closed form and a denoising step in turn, at noise levels that fall
from 49 to that of the photo. `pnp_admm` also accumulates the difference of both steps (S. Chan et al., IEEE
TCI 2017). `red` is the fixed-point iteration of Romano et al., "The Little Engine That Could", SIIMS 2017.

Legend: C channels, H height, W width.
"""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from restora.fitting.base import Fit, Problem, Step, check_above_zero, check_at_least, moved
from restora.fitting.denoisers import Denoiser, OpenedOnce
from restora.image import check_scale, turned, turned_back
from restora.operators.base import Operator
from restora.operators.blur import Blur, MirroredBlur, edge_margins
from restora.operators.pointwise import Identity, Mask
from restora.registry import register

_LEAST = 0.255
"""The smallest noise level (8-bit scale) that DPIR assumes: a thousandth of white."""


@dataclass(frozen=True)
class _Case:
    """A photo to restore: first estimate and observation (1,C,H,W), noise levels on the 8-bit scale."""

    start: Tensor
    observed: Tensor
    operator: Operator
    denoise: Denoiser
    sigma: float
    last: float
    """The level of the last denoising."""
    steps: int


class PlugAndPlay(Fit):
    """Steps of a data term and a denoiser; subclasses define their order and any further state."""

    tasks: ClassVar[tuple[str, ...]] = ("denoise", "deblur", "super_resolution", "inpaint", "demosaic")
    level_tasks = tasks

    denoiser: OpenedOnce
    steps: int | None
    turns: bool

    def prepare(self, device: torch.device) -> None:
        self.denoiser.on(device)

    def __call__(self, problem: Problem, *, seed: int, device: torch.device) -> Iterator[Step]:  # noqa: ARG002
        if problem.sigma is None and isinstance(problem.operator, Identity | MirroredBlur | Blur):
            raise ValueError(f"{self.name} needs the noise level: give sigma (--sigma LEVEL)")
        denoise = self.denoiser.on(device)
        observed = problem.degraded.to(device)
        operator, y, margin = _circular(moved(problem.operator, device), observed)
        sigma = problem.sigma or 0.0
        steps = self.steps or usual_steps(operator)
        last = max(sigma, _LEAST, lowest_sigma(operator))
        case = _Case(operator.start(y), y, operator, denoise, max(sigma, _LEAST), last, steps)
        with torch.no_grad():
            for number, x in enumerate(self._iterate(case), 1):
                picture = x[..., margin : x.shape[-2] - margin, margin : x.shape[-1] - margin]
                loss = F.mse_loss(operator.A(x), y).item()
                yield Step(number, steps, picture, loss)

    @abstractmethod
    def _iterate(self, case: _Case) -> Iterator[Tensor]:
        """The estimates (1,C,H,W), one per step."""

    def _denoised(self, x: Tensor, sigma: float, number: int, denoise: Denoiser) -> Tensor:
        """With `turns`, another of the eight turns and mirrorings at each step: an ensemble at no cost."""
        try:
            check_scale(x)
        except ValueError as error:
            raise ValueError(
                f"{self.name}: undoing the degradation takes the photo far out of [0,1] (to "
                f"{float(x.abs().max()):.3g}): it has more noise than sigma says, or another kernel: give a "
                "higher sigma (--sigma LEVEL), or the kernel of its blur"
            ) from error
        turn = number % 8 if self.turns else 0
        return turned_back(denoise(turned(x, turn), sigma), turn)


class Splitting(PlugAndPlay):
    """A data step and a denoising step in turn, at levels that fall from `first_sigma`."""

    def __init__(
        self,
        *,
        denoiser: Any = None,
        steps: int | None = None,
        first_sigma: float = 49.0,
        weight: float = 0.23,
        turns: bool = True,
    ) -> None:
        check_at_least(self.name, 1, steps=steps)
        check_above_zero(self.name, weight=weight, first_sigma=first_sigma)
        self.denoiser, self.steps, self.turns = OpenedOnce(denoiser, self.name), steps, turns
        self.first_sigma, self.weight = first_sigma, weight

    def _levels(self, case: _Case) -> Iterator[tuple[int, float, float]]:
        """Number, noise level and weight of the prior, step by step."""
        for number, level in enumerate(falling(self.first_sigma, case.last, case.steps)):
            yield number, level, self.weight * (case.sigma / level) ** 2


@register("method", "pnp_hqs")
class HalfQuadraticSplitting(Splitting):
    """Half-quadratic splitting with a denoiser as the prior.

    `denoiser` is any source of a model that is conditioned on the noise level, or a list of models of one
    level each. `steps` null is DPIR's number: 8 for blur, 24 for enlarging, 40 for missing pixels. `weight`
    is DPIR's lambda.
    """

    name: ClassVar[str] = "pnp_hqs"

    def _iterate(self, case: _Case) -> Iterator[Tensor]:
        x = case.start
        for number, level, weight in self._levels(case):
            x = case.operator.prox(x, case.observed, weight)
            x = self._denoised(x, level, number, case.denoise)
            yield x


@register("method", "pnp_admm")
class AlternatingDirections(Splitting):
    """As `pnp_hqs`, with the multipliers of ADMM, which are rescaled when the weight of the prior changes."""

    name: ClassVar[str] = "pnp_admm"

    def _iterate(self, case: _Case) -> Iterator[Tensor]:
        x, u = case.start, torch.zeros_like(case.start)
        before: float | None = None
        for number, level, weight in self._levels(case):
            u = u if before is None else u * (before / weight)
            before = weight
            data = case.operator.prox(x - u, case.observed, weight)
            x = self._denoised(data + u, level, number, case.denoise)
            u = u + data - x
            yield x


@register("method", "red")
class RegularisedByDenoising(PlugAndPlay):
    """The minimum of `|A x - y|^2 / (2 sigma^2) + weight/2 x (x - denoised x)`.

    The denoiser always runs at `denoiser_sigma`; null is the photo's noise level, or 3.25 if that is lower
    (the paper's value for deblurring at sigma 1.41).
    """

    name: ClassVar[str] = "red"

    def __init__(
        self,
        *,
        denoiser: Any = None,
        steps: int = 50,
        denoiser_sigma: float | None = None,
        weight: float = 0.02,
        turns: bool = True,
    ) -> None:
        check_at_least(self.name, 1, steps=steps)
        check_above_zero(self.name, weight=weight, denoiser_sigma=denoiser_sigma)
        self.denoiser, self.steps, self.turns = OpenedOnce(denoiser, self.name), steps, turns
        self.denoiser_sigma, self.weight = denoiser_sigma, weight

    def _iterate(self, case: _Case) -> Iterator[Tensor]:
        x, weight = case.start, self.weight * case.sigma**2
        level = max(case.last, 3.25) if self.denoiser_sigma is None else self.denoiser_sigma
        for number in range(case.steps):
            denoised = self._denoised(x, level, number, case.denoise)
            x = case.operator.prox(denoised, case.observed, weight)
            yield x


def falling(first: float, last: float, steps: int) -> list[float]:
    """Noise levels spaced evenly in the logarithm, the last one `last`."""
    first = max(first, last)
    if steps == 1:
        return [last]
    return [first * (last / first) ** (step / (steps - 1)) for step in range(steps)]


def usual_steps(operator: Operator) -> int:
    """DPIR's number of steps."""
    return 40 if isinstance(operator, Mask) else 24 if operator.scale > 1 else 8


def lowest_sigma(operator: Operator) -> float:
    """The level of the last denoising where the photo has no noise (8-bit scale; DPIR)."""
    return 0.6 if isinstance(operator, Mask) else float(operator.scale) if operator.scale > 1 else 0.0


def _circular(operator: Operator, y: Tensor) -> tuple[Operator, Tensor, int]:
    """An operator whose data step has a closed form, its observation, and the margin to cut off."""
    if not isinstance(operator, MirroredBlur):
        return operator, y, 0
    padded = edge_margins(y, operator.kernel)
    return Blur(operator.kernel), padded, (padded.shape[-1] - y.shape[-1]) // 2
