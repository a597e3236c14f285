"""Reduction by a whole factor: the input of super-resolution."""

from torch import Tensor

from restora.degradations.base import Degradation, Params, Severity, Shape
from restora.image import KERNELS, Kernel, resize, to_8_bit
from restora.keyed import KeyedGenerator
from restora.registry import register


@register("degradation", "downsample")
class Downsample(Degradation):
    """The photo reduced `scale` times.

    `bicubic` with `round_8bit` is the field's benchmark (MATLAB's imresize of uint8).

    `restore_size` enlarges it again by bicubic interpolation to the original size, for networks that work on
    the enlarged photo (SRCNN, VDSR); the degradation's own scale is then 1. `round_8bit` clips to [0,1];
    without it, and after enlarging, the photo is not clipped.
    """

    def __init__(
        self, *, scale: int, kernel: Kernel = "bicubic", round_8bit: bool = True, restore_size: bool = False
    ) -> None:
        if scale < 1 or kernel not in KERNELS:
            raise ValueError(
                f"expected scale >= 1 and kernel of {', '.join(KERNELS)}, got {scale} and {kernel!r}"
            )
        self.factor, self.kernel, self.round_8bit, self.restore_size = scale, kernel, round_8bit, restore_size
        self.scale = 1 if restore_size else scale

    @property
    def severity(self) -> Severity:
        return Severity("scale", self.factor, self.factor)

    def sample(self, shape: Shape, generator: KeyedGenerator) -> Params:
        return {}

    def apply(self, clean: Tensor, params: Params) -> Tensor:
        height, width = clean.shape[-2:]
        # a size that is not a multiple occurs only if the size is restored: rounded up, as MATLAB does
        small = resize(clean, -(-height // self.factor), -(-width // self.factor), kernel=self.kernel)
        if self.round_8bit:
            small = to_8_bit(small)
        return resize(small, height, width) if self.restore_size else small
