"""DRUNet for inpainting: missing pixels are first filled from their surroundings.

The filling is push-pull: S. Gortler, R. Grzeszczuk, R. Szeliski, M. Cohen, "The Lumigraph", SIGGRAPH 1996,
section 4. Means of the known pixels are taken over ever larger cells, and a missing pixel gets its value from
the smallest cells with a known pixel. So the middle of a hole wider than a small network's receptive field
matches its surroundings; with black input there, the network leaves it dark.

Legend: B samples, C channels, H height, W width.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from restora.networks.drunet import DRUNet
from restora.registry import register

LEVELS = 5
"""Cells of up to 32 x 32 pixels; where these have no known pixel, the mean of the photo is used."""


@register("network", "filling_drunet")
class FillingDRUNet(DRUNet):
    """DRUNet on photos with filled missing pixels; its output is added to them.

    The condition is the mask, 1 = known.
    """

    tasks: ClassVar[tuple[str, ...]] = ("inpaint",)
    size_multiple = 2**LEVELS
    fill_levels: Tensor

    def __init__(
        self,
        *,
        in_channels: int = 3,
        channels: tuple[int, int, int, int] = (32, 48, 64, 64),
        blocks: int = 1,
    ) -> None:
        super().__init__(in_channels=in_channels, condition_channels=1, channels=channels, blocks=blocks)
        self.register_buffer("fill_levels", torch.tensor(LEVELS))  # not in DRUNet's files

    def restore(self, x: Tensor, condition: Tensor | None) -> Tensor:
        if condition is None:
            raise ValueError("FillingDRUNet fills in: give it the mask of what is known as its condition")
        filled = filled_from_around(x, condition)
        return filled + super().restore(filled, condition)

    @classmethod
    def infer_arguments(cls, state: Mapping[str, Tensor]) -> dict[str, int | list[int] | bool] | None:
        """The constructor's arguments that a state dict of this architecture was made with, else None."""
        if "fill_levels" not in state:
            return None
        known = DRUNet.infer_arguments({key: state[key] for key in state if key != "fill_levels"})
        if known is not None:
            del known["condition_channels"]
        return known


def filled_from_around(x: Tensor, known: Tensor) -> Tensor:
    """(B,C,H,W) and (B,1,H,W), 1 = known -> x where known, elsewhere means of known pixels nearby.

    H and W are multiples of 32.
    """
    values, share = x * known, known
    levels = []
    for _ in range(LEVELS):
        levels.append((values, share))
        values, share = F.avg_pool2d(values, 2), F.avg_pool2d(share, 2)
    total = share.mean((2, 3), keepdim=True).clamp(min=1e-6)
    filled = values + (1 - share) * (values.mean((2, 3), keepdim=True) / total)
    for values, share in reversed(levels):
        coarse = F.interpolate(filled, scale_factor=2, mode="bilinear", align_corners=False)
        filled = values + (1 - share) * coarse
    return filled
