"""IRCNN's denoiser: seven dilated convolutions, one set of weights for each noise level.

K. Zhang, W. Zuo, S. Gu, L. Zhang, "Learning Deep CNN Denoiser Prior for Image Restoration", CVPR 2017.
Parameter names are those of KAIR's checkpoints (`model.0.weight`, ...), which hold 25 sets, for noise levels
2, 4, ... 50, under `0` to `24`.

Legend: B samples, C channels, H height, W width.
"""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from restora.networks.base import Network
from restora.networks.layers.blocks import convolution_names, he_initialise
from restora.registry import register

DILATIONS = (1, 2, 3, 4, 3, 2, 1)
LEVELS = tuple(range(2, 51, 2))
"""Noise levels (8-bit scale) of the 25 sets of weights."""


@register("network", "ircnn")
class IRCNN(Network):
    """restored = x - model(x), a receptive field of 33x33 by dilation."""

    tasks: ClassVar[tuple[str, ...]] = ("denoise",)

    def __init__(self, *, in_channels: int = 1, channels: int = 64) -> None:
        super().__init__()
        self.in_channels = self.out_channels = in_channels
        layers: list[nn.Module] = []
        for place, dilation in enumerate(DILATIONS):
            inputs = in_channels if place == 0 else channels
            outputs = in_channels if place == len(DILATIONS) - 1 else channels
            layers += [
                nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation),
                nn.ReLU(inplace=True),
            ]
        self.model = nn.Sequential(*layers[:-1])
        he_initialise(self)

    def restore(self, x: Tensor, condition: Tensor | None) -> Tensor:  # noqa: ARG002
        return x - self.model(x)

    @classmethod
    def infer_arguments(cls, state: Mapping[str, Tensor]) -> dict[str, int] | None:
        """The constructor's arguments, inferred from a state dict of this architecture; else None.

        (A DnCNN of seven convolutions has the same names and shapes: a file does not hold the dilation.)
        """
        names = convolution_names(state, "model")
        if len(names) != len(DILATIONS) or len(state) != 2 * len(DILATIONS):
            return None
        channels, photo = state[names[0]].shape[:2]
        if state[names[-1]].shape[0] != photo:
            return None
        return {"in_channels": photo, "channels": channels}
