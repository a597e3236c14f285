"""DRUNet for inpainting: missing pixels are first filled from their surroundings (`layers/filling.py`).

So the middle of a hole wider than a small network's receptive field matches its surroundings; with black
input there, the network leaves it dark.

Legend: B samples, C channels, H height, W width.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from restora.networks.drunet import DRUNet
from restora.networks.layers.filling import LEVELS, filled_from_around
from restora.registry import register


@register("network", "filling_drunet")
class FillingDRUNet(DRUNet):
    """DRUNet on photos with filled missing pixels; its output is added to them.

    The condition is the mask, 1 = known. `sweeps`: 0 fills by push-pull, 4 nearly harmonically.
    """

    tasks: ClassVar[tuple[str, ...]] = ("inpaint",)
    size_multiple = 2**LEVELS
    fill_levels: Tensor
    fill_sweeps: Tensor

    def __init__(
        self,
        *,
        in_channels: int = 3,
        channels: tuple[int, int, int, int] = (32, 48, 64, 64),
        blocks: int = 1,
        sweeps: int = 0,
    ) -> None:
        super().__init__(in_channels=in_channels, condition_channels=1, channels=channels, blocks=blocks)
        if sweeps < 0:
            raise ValueError(f"network.sweeps must be 0 or more, got {sweeps}")
        self.sweeps = sweeps
        self.register_buffer("fill_levels", torch.tensor(LEVELS))  # not in DRUNet's files
        if sweeps:
            self.register_buffer(
                "fill_sweeps", torch.tensor(sweeps)
            )  # not in files from before there were any

    def restore(self, x: Tensor, condition: Tensor | None) -> Tensor:
        if condition is None:
            raise ValueError("FillingDRUNet fills in: give it the mask of what is known as its condition")
        filled = filled_from_around(x, condition, self.sweeps)
        return filled + super().restore(filled, condition)

    @classmethod
    def infer_arguments(cls, state: Mapping[str, Tensor]) -> dict[str, int | list[int] | bool] | None:
        """The constructor's arguments that a state dict of this architecture was made with, else None."""
        if "fill_levels" not in state:
            return None
        own = ("fill_levels", "fill_sweeps")
        known = DRUNet.infer_arguments({key: state[key] for key in state if key not in own})
        if known is not None:
            del known["condition_channels"]
            if "fill_sweeps" in state:
                known["sweeps"] = int(state["fill_sweeps"])
        return known
