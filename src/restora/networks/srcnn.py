"""SRCNN: three convolutions on the bicubically upsampled photo, the first CNN for super-resolution.

C. Dong, C. C. Loy, K. He, X. Tang, "Image Super-Resolution Using Deep Convolutional Networks", TPAMI 2016.
Kernels 9-1-5 give the paper's 8,032 weights, 9-5-5 its 57,184. The authors' weights are MATLAB files;
parameter names are those of the PyTorch weights in circulation (`conv1.weight`, ...).

Legend: B samples, C channels (1: luminance), H height, W width, s scale.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from restora.networks.layers.blocks import he_initialise
from restora.networks.layers.luminance import LuminanceNetwork
from restora.registry import register


@register("network", "srcnn")
class SRCNN(LuminanceNetwork):
    """Patch extraction, non-linear mapping, reconstruction (section 3.1).

    Borders are padded with zeros; the paper crops them.
    """

    tasks: ClassVar[tuple[str, ...]] = ("super_resolution", "denoise", "jpeg", "deblur")
    on_enlarged: ClassVar[bool] = True

    def __init__(
        self,
        *,
        scale: int = 3,
        in_channels: int = 3,
        kernels: Sequence[int] = (9, 5, 5),
        channels: Sequence[int] = (64, 32),
        luminance: bool = True,
        round_8bit: bool = True,
    ) -> None:
        super().__init__(scale=scale, in_channels=in_channels, luminance=luminance, round_8bit=round_8bit)
        if len(kernels) != 3 or len(channels) != 2 or any(k % 2 == 0 for k in kernels):
            raise ValueError(
                "network.kernels must be three odd sizes and network.channels two widths, "
                f"got {list(kernels)} and {list(channels)}"
            )
        widths = (self.channels, *channels, self.channels)
        self.conv1, self.conv2, self.conv3 = (
            nn.Conv2d(widths[i], widths[i + 1], kernels[i], padding=kernels[i] // 2) for i in range(3)
        )
        he_initialise(self)

    def predict(self, x: Tensor) -> Tensor:
        y = F.relu(self.conv1(x), inplace=True)
        y = F.relu(self.conv2(y), inplace=True)
        return self.conv3(y)

    @classmethod
    def infer_arguments(cls, state: Mapping[str, Tensor]) -> dict[str, Any] | None:
        """The constructor's arguments, inferred from a state dict of this architecture; else None."""
        names = [f"conv{i}.weight" for i in (1, 2, 3)]
        if set(state) != {*names, *(name.replace("weight", "bias") for name in names)}:
            return None
        shapes = [state[name].shape for name in names]
        if [shape[-1] for shape in shapes] == [3, 3, 1]:  # the same names, ZS-N2N's network
            return None
        return {
            "kernels": [shape[-1] for shape in shapes],
            "channels": [shape[0] for shape in shapes[:2]],
            **cls.colours(state["conv1.weight"]),
        }
