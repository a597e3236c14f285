"""The batch that travels from the data module to a family.

Legend: B samples, C channels, H height, W width, s the scale of a super-resolution task (1 otherwise),
K condition channels.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """One batch on the device, degraded and ready for a network.

    `clean` is float32 (B,C,H,W) in [0,1]. `degraded` is float32 (B,C,H/s,W/s) on the [0,1] scale; a
    degradation that the field does not clip (Gaussian noise) may leave the interval. `condition` is float32
    (B,K,H/s,W/s): a noise-level map in the units of `degraded`, or a mask that is 1 where the pixel is known.
    """

    clean: Tensor
    degraded: Tensor
    condition: Tensor | None
    names: list[str]
