"""Patch MLP: a perceptron from noisy patches to clean ones, applied at all positions of the photo.

Overlapping outputs are averaged.

H. C. Burger, C. J. Schuler, S. Harmeling, "Image Denoising: Can Plain Neural Networks Compete with BM3D?",
CVPR 2012. The deep network has 17x17 patches and four hidden layers of 2,047; with one hidden layer it is the
classical shallow network. The paper's weights are in its own text format; the parameter names are ours.

Patches are not gathered: the first layer is a strided convolution, the last a strided transposed convolution,
whose overlap-add is the averaging. The window and the number of patches over a pixel depend only on the
pixel's position modulo the stride, so they are multiplied into the last layer.

Legend: B samples, C channels, p input patch, q output patch, s stride, h x w patches, E hidden units, H
height, W width.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import isqrt
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restora.networks.base import Network
from restora.networks.layers.blocks import count_children
from restora.networks.meta import in_memory
from restora.registry import register


@register("network", "patch_mlp")
class PatchMLP(Network):
    """Linear and tanh over patches (section 2), Gaussian weighting of overlapping outputs (section 3.2).

    `patch` is the side of the input patch, `output_patch` that of the output, of equal parity and not larger;
    `stride` is 3 in the paper's tests. The input is normalised to (x - 0.5)/0.2 as in the paper.
    """

    tasks: ClassVar[tuple[str, ...]] = ("denoise", "jpeg", "inpaint")

    window: Tensor

    def __init__(
        self,
        *,
        in_channels: int = 1,
        patch: int = 17,
        output_patch: int = 17,
        hidden: Sequence[int] = (2047, 2047, 2047, 2047),
        stride: int = 3,
    ) -> None:
        super().__init__()
        if not hidden:
            raise ValueError("network.hidden needs at least one hidden layer")
        if output_patch > patch or (patch - output_patch) % 2 or not 1 <= stride <= output_patch:
            raise ValueError(
                "network.output_patch must be at most network.patch and of equal parity, network.stride "
                "at most "
                f"network.output_patch; got {output_patch}, {patch} and {stride}"
            )
        self.in_channels = self.out_channels = in_channels
        self.patch, self.output_patch, self.stride = patch, output_patch, stride
        self.size_multiple = stride
        widths = (in_channels * patch**2, *hidden, in_channels * output_patch**2)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        for layer in self.layers:
            assert isinstance(layer, nn.Linear)
            nn.init.xavier_uniform_(layer.weight)  # the paper's reference 17
            nn.init.zeros_(layer.bias)
        self.register_buffer("window", _averaging_window(output_patch, stride), persistent=False)

    def restore(self, x: Tensor, condition: Tensor | None) -> Tensor:  # noqa: ARG002
        p, q, s = self.patch, self.output_patch, self.stride
        first, *inner, last = [layer for layer in self.layers if isinstance(layer, nn.Linear)]
        # all patches whose output overlaps the photo
        before, margin = (q - 1) // s * s, (p - q) // 2
        padded = F.pad(x, (before + margin, q - s + margin) * 2, mode="replicate")
        kernel = first.weight.view(-1, self.in_channels, p, p)
        y = F.conv2d((padded - 0.5) / 0.2, kernel, first.bias, stride=s)  # (B,E,h,w)
        y = y.permute(0, 2, 3, 1).tanh()  # (B,h,w,E)
        for layer in inner:
            y = layer(y).tanh()
        weights = last.weight.view(self.in_channels, q, q, -1) * self.window[:, :, None]  # (C,q,q,E)
        y = F.conv_transpose2d(y.permute(0, 3, 1, 2), weights.permute(3, 0, 1, 2), stride=s)
        batch, height, width = x.shape[0], x.shape[2], x.shape[3]
        y = y[:, :, before : before + height, before : before + width]  # (B,C,H,W)
        cells = y.reshape(batch, self.in_channels, height // s, s, width // s, s)
        cells = cells + self._bias_cell(last.bias)[:, None, :, None, :]
        return cells.reshape(batch, self.in_channels, height, width) * 0.2 + 0.5

    def _bias_cell(self, bias: Tensor) -> Tensor:
        """(C,s,s): the last layer's bias at each position of a cell, averaged over its patches."""
        s = self.stride
        weighted = bias.view(self.in_channels, *self.window.shape) * self.window
        filled = F.pad(weighted, (0, -self.output_patch % s) * 2)
        count = filled.shape[-1] // s
        return filled.view(self.in_channels, count, s, count, s).sum(dim=(1, 3))

    @classmethod
    def infer_arguments(cls, state: Mapping[str, Tensor]) -> dict[str, Any] | None:
        """The constructor's arguments, inferred from a state dict of this architecture; else None.

        Patches are assumed grey if their size is a square, else colour. The stride cannot be inferred.
        """
        count = count_children(state, "layers")
        weights = [state.get(f"layers.{i}.weight") for i in range(count)]
        if count < 2 or any(weight is None or weight.ndim != 2 for weight in weights):
            return None
        shapes = [weight.shape for weight in weights if weight is not None]
        channels = 1 if isqrt(shapes[0][1]) ** 2 == shapes[0][1] else 3
        patch, output_patch = (isqrt(count // channels) for count in (shapes[0][1], shapes[-1][0]))
        return {
            "in_channels": channels,
            "patch": patch,
            "output_patch": output_patch,
            "hidden": [shape[0] for shape in shapes[:-1]],
        }


@in_memory
def _averaging_window(size: int, stride: int) -> Tensor:
    """(size,size) Gaussian weights of a patch that sum to one over the patches that cover any one pixel."""
    profile = torch.exp(-0.5 * ((torch.arange(size) - (size - 1) / 2) / (size / 4)) ** 2)
    total = torch.zeros(stride).index_add_(0, torch.arange(size) % stride, profile)
    profile = profile / total[torch.arange(size) % stride]
    return profile[:, None] * profile
