"""Detail lost by downsampling and upsampling, at the size of the photo."""

import math

import torch
from torch import Tensor

from restora.degradations.base import Degradation, Params, Shape
from restora.degradations.parameters import Range, as_range
from restora.degradations.sampling.varying_resizing import apply_matrices, reduction_matrices
from restora.keyed import KeyedGenerator
from restora.registry import register


@register("degradation", "low_resolution")
class LowResolution(Degradation):
    """The photo reduced by `factor` and enlarged again by bicubic interpolation.

    `factor` is a number or a range per sample.

    Reduction and enlargement of one side are one matrix, so samples of different factors go in one batch.
    The factor is drawn log-uniformly; the reduction is anti-aliased. It is the input of VDSR (Kim et al.,
    CVPR 2016), which takes all factors with one network. Not clipped.
    """

    def __init__(self, *, factor: Range) -> None:
        low, high = as_range("factor", factor, least=1)
        self.log_factor = (math.log(low), math.log(high))

    def sample(self, shape: Shape, generator: KeyedGenerator) -> Params:
        return {"factor": generator.uniform((), *self.log_factor).exp()}

    def apply(self, clean: Tensor, params: Params) -> Tensor:
        height, width = clean.shape[-2:]
        rows = self._there_and_back(height, params["factor"])
        columns = rows if height == width else self._there_and_back(width, params["factor"])
        return apply_matrices(clean, rows, columns)

    def _there_and_back(self, n: int, factor: Tensor) -> Tensor:
        small = (n / factor).round_().clamp_(min=1)
        full = torch.full_like(small, n)
        return reduction_matrices(n, n, full, small) @ reduction_matrices(n, n, small, full)
