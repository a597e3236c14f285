"""The linear operators of degradations, `y = A x + n`, with their adjoints and proximal operators.

Legend: B samples, C channels, H W of the photo x, h w of the observation y.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor


class Operator(ABC):
    """A linear map of photos, the same for every channel.

    `A` takes float (B,C,H,W) and gives (B,C,h,w) in the same dtype; `At` is its adjoint, so that
    `<A x, y> = <x, At y>`. `prox(z, y, rho)` is the x that minimises `|A x - y|^2 + rho |x - z|^2`, which is
    the solution of `(At A + rho) x = At y + rho z`; here by conjugate gradients, in closed form where a
    subclass has one. All are differentiable.
    """

    scale: int = 1
    """H over h."""

    @abstractmethod
    def A(self, x: Tensor) -> Tensor: ...

    @abstractmethod
    def At(self, y: Tensor) -> Tensor: ...

    def check(self, y: Tensor) -> None:  # noqa: B027
        """Raises ValueError, with the fix, for an observation that is not one of this operator."""

    def prox(self, z: Tensor, y: Tensor, rho: float) -> Tensor:
        check_rho(rho)
        right = self.At(y) + rho * z
        return conjugate_gradients(lambda x: self.At(self.A(x)) + rho * x, right, start=z)

    def start(self, y: Tensor) -> Tensor:
        """A first estimate of the photo, (B,C,H,W)."""
        return self.At(y)


def conjugate_gradients(
    matrix: Callable[[Tensor], Tensor],
    right: Tensor,
    *,
    start: Tensor,
    tolerance: float = 1e-6,
    most: int = 500,
) -> Tensor:
    """The solution of `matrix(x) = right` for a symmetric positive definite matrix.

    Stops when the norm of the residual is at most `tolerance` times that of the right side, or after `most`
    steps.
    """
    x = start
    residual = right - matrix(x)
    direction, power = residual, _power(residual)
    enough = tolerance**2 * _power(right)
    for _ in range(most):
        if power <= enough:
            break
        changed = matrix(direction)
        step = power / (direction * changed).sum(dtype=torch.float64)
        x = x + step.to(x.dtype) * direction
        residual = residual - step.to(x.dtype) * changed
        power, before = _power(residual), power
        direction = residual + (power / before).to(x.dtype) * direction
    return x


def _power(x: Tensor) -> Tensor:
    return x.square().sum(dtype=torch.float64)


def check_scale(scale: int) -> None:
    if not isinstance(scale, int) or isinstance(scale, bool) or scale < 1:
        raise ValueError(f"scale must be a whole number >= 1, got {scale}")


def check_rho(rho: float) -> None:
    if not rho > 0:
        raise ValueError(f"rho, the weight of the prior, must be above 0, got {rho:g}")
