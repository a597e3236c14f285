"""Sub-pixel shifts: the misalignment of real low-resolution photos."""

import math

from torch import Tensor

from restora.degradations.base import Params, Shape
from restora.degradations.blur.filtering import KernelBlur, normalised, pixel_grid
from restora.degradations.parameters import Range, as_range
from restora.image import profile
from restora.keyed import KeyedGenerator
from restora.registry import register


@register("degradation", "pixel_shift")
class PixelShift(KernelBlur):
    """The photo moved right and down by `shift` pixels, drawn separately for the two directions.

    A number or a range, drawn uniformly per sample. Interpolation is by Keys' cubic kernel (1981), as in
    bicubic resizing; mirrored borders. Not clipped.
    """

    def __init__(self, *, shift: Range) -> None:
        self.shift = as_range("shift", shift)
        self.radius = math.ceil(max(abs(s) for s in self.shift)) + 2

    def sample(self, shape: Shape, generator: KeyedGenerator) -> Params:
        return {"shift": generator.uniform((2,), *self.shift)}

    def kernels(self, params: Params) -> Tensor:
        down, right = (s.view(-1, 1, 1) for s in params["shift"].unbind(1))
        rows, columns = pixel_grid(self.radius, down.device)
        return normalised(profile("bicubic", rows - down) * profile("bicubic", columns - right))
