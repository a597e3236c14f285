"""Reduction by MATLAB's bicubic, as in the evaluation of super-resolution.

Legend: B samples, C channels, H W of the photo, h w of the reduced one.
"""

from functools import lru_cache

import torch
from torch import Tensor

from restora.image import full_precision, matrix, resize
from restora.operators.base import Operator, check_rho, check_scale


class Bicubic(Operator):
    """y = R x C^T with the two matrices of `image.resize`, from (H,W) to (H/s,W/s).

    It is separable, so that `prox` needs the eigenvectors of two small matrices and no iterations.
    """

    def __init__(self, scale: int) -> None:
        check_scale(scale)
        self.scale = scale

    def _matrices(self, x: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """R (h,H) and C (w,W)."""
        sides = ((side, side // self.scale) for side in (height, width))
        rows, columns = (matrix(n, m, "bicubic", True, x.device).to(x.dtype) for n, m in sides)
        return rows, columns

    def A(self, x: Tensor) -> Tensor:
        rows, columns = self._matrices(x, *x.shape[-2:])
        with full_precision(x.device):
            return rows @ x @ columns.T

    def At(self, y: Tensor) -> Tensor:
        rows, columns = self._matrices(y, y.shape[-2] * self.scale, y.shape[-1] * self.scale)
        with full_precision(y.device):
            return rows.T @ y @ columns

    def prox(self, z: Tensor, y: Tensor, rho: float) -> Tensor:
        check_rho(rho)
        (of_rows, u), (of_columns, v) = (_eigen(side, self.scale) for side in z.shape[-2:])
        exact = (self.At(y) + rho * z).double()
        u, v = u.to(z.device), v.to(z.device)
        powers = of_rows.to(z.device)[:, None] * of_columns.to(z.device)
        return (u @ ((u.T @ exact @ v) / (powers + rho)) @ v.T).to(z.dtype)

    def start(self, y: Tensor) -> Tensor:
        enlarged = resize(y.float(), y.shape[-2] * self.scale, y.shape[-1] * self.scale)
        return enlarged.clamp(0, 1).to(y.dtype)


@lru_cache(maxsize=16)
def _eigen(side: int, scale: int) -> tuple[Tensor, Tensor]:
    """Eigenvalues (H,) and eigenvectors (H,H) of R^T R in float64, R of `side` pixels reduced by `scale`."""
    reduce = matrix(side, side // scale, "bicubic", True, torch.device("cpu")).double()
    values, vectors = torch.linalg.eigh(reduce.T @ reduce)
    return values.clamp(min=0), vectors
