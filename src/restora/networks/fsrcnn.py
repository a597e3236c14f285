"""FSRCNN: a thin hourglass on the small photo, upsampled at the end by a transposed convolution.

C. Dong, C. C. Loy, X. Tang, "Accelerating the Super-Resolution Convolutional Neural Network", ECCV 2016:
FSRCNN(d, s, m) with (56, 12, 4), and FSRCNN-s (32, 5, 1). Names are those of the PyTorch weights in
circulation (`first_part.0.weight`, `mid_part.0.weight`, `last_part.weight`).

Legend: B samples, C channels (1: luminance), H height, W width, s scale.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from restora.networks.layers.blocks import convolution_names, he_initialise
from restora.networks.layers.luminance import LuminanceNetwork
from restora.registry import register


@register("network", "fsrcnn")
class FSRCNN(LuminanceNetwork):
    """Features, shrinking, `mappings` 3x3 convolutions, expanding, 9x9 deconvolution (section 3.2)."""

    tasks: ClassVar[tuple[str, ...]] = ("super_resolution",)
    on_enlarged: ClassVar[bool] = False

    def __init__(
        self,
        *,
        scale: int = 3,
        in_channels: int = 3,
        channels: int = 56,
        shrunk: int = 12,
        mappings: int = 4,
        luminance: bool = True,
    ) -> None:
        super().__init__(scale=scale, in_channels=in_channels, luminance=luminance, round_8bit=False)
        self.first_part = nn.Sequential(nn.Conv2d(self.channels, channels, 5, padding=2), nn.PReLU(channels))
        middle: list[nn.Module] = [nn.Conv2d(channels, shrunk, 1), nn.PReLU(shrunk)]
        for _ in range(mappings):
            middle += [nn.Conv2d(shrunk, shrunk, 3, padding=1), nn.PReLU(shrunk)]
        middle += [nn.Conv2d(shrunk, channels, 1), nn.PReLU(channels)]
        self.mid_part = nn.Sequential(*middle)
        self.last_part = nn.ConvTranspose2d(
            channels, self.channels, 9, stride=scale, padding=4, output_padding=scale - 1
        )
        he_initialise(self)
        nn.init.normal_(self.last_part.weight, std=0.001)  # the paper's section 3.4
        assert self.last_part.bias is not None
        nn.init.zeros_(self.last_part.bias)

    def predict(self, x: Tensor) -> Tensor:
        return self.last_part(self.mid_part(self.first_part(x)))

    @classmethod
    def infer_arguments(cls, state: Mapping[str, Tensor]) -> dict[str, Any] | None:
        """The constructor's arguments, inferred from a state dict of this architecture; else None.

        No shape depends on the scale: it is the one at which a flat photo keeps its level.
        """
        if "mid_part.0.weight" not in state or "last_part.weight" not in state:
            return None
        shrunk, channels = state["mid_part.0.weight"].shape[:2]
        mappings = len(convolution_names(state, "mid_part")) - 2
        found: dict[str, Any] = {"channels": channels, "shrunk": shrunk, "mappings": mappings}
        found |= cls.colours(state["first_part.0.weight"])
        scale = _trained_scale(cls(scale=1, **found), state)
        return found if scale is None else {**found, "scale": scale}


@torch.no_grad()
def _trained_scale(network: FSRCNN, state: Mapping[str, Tensor]) -> int | None:
    """The stride of the trained deconvolution; None if no stride keeps a flat photo's level."""
    if any(state[name].shape != value.shape for name, value in network.state_dict().items()):
        return None
    network.load_state_dict(dict(state), strict=False)
    grey = torch.full((1, network.channels, 16, 16), 0.5)
    summed = network.predict(grey)[0, 0, 8, 8]  # over the whole kernel: at stride 1 it is one phase
    assert network.last_part.bias is not None
    bias = network.last_part.bias[0]
    errors = {scale: abs(float((summed - bias) / scale**2 + bias - 0.5)) for scale in range(1, 5)}
    best = min(errors, key=errors.__getitem__)
    return best if errors[best] < 0.05 and abs(float(summed - bias)) > 0.1 else None
