"""NAFNet with transposed attention.

Channels are scaled by attention across channels instead of by a mean.

It has the blocks of L. Chen et al., "Simple Baselines for Image Restoration", ECCV 2022, with the simplified
channel attention x * W mean(x) replaced by x * MDTA(x), the multi-Dconv head transposed attention of S. W.
Zamir et al., "Restormer", CVPR 2022. Parameter names are NAFNet's, and Restormer's below `sca`.

With the test-time local converter, the attention matrix is computed over windows instead of the whole photo,
as X. Chu et al., ECCV 2022, do for Restormer: windows of equal size that cover the photo, averaged where they
overlap.

Legend: B samples, H height, W width, C channels, k window.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from restora.networks.layers.channels_last import convolve, pointwise
from restora.networks.layers.local_converter import GlobalStatistic
from restora.networks.layers.restormer_blocks import TransposedAttention
from restora.networks.nafnet import NAFNet, nafnet_arguments
from restora.registry import register


class GatedTransposedAttention(TransposedAttention, GlobalStatistic):
    """x * attention(x), (B,H,W,C) -> same; over all positions, or over windows after conversion."""

    def forward(self, x_BHWC: Tensor) -> Tensor:
        qkv = convolve(self.qkv_dwconv, pointwise(self.qkv, x_BHWC))  # (B,H,W,3C)
        height, width = x_BHWC.shape[1:3]
        if self.window is None or (self.window[0] >= height and self.window[1] >= width):
            return x_BHWC * self.attend(qkv)
        if torch.compiler.is_exporting():
            raise ValueError(
                "attention over local windows has no graph for every size; that of a run trained with "
                "family.local_converter=null has one"
            )
        total, count = torch.zeros_like(x_BHWC), x_BHWC.new_zeros(1, height, width, 1)
        for rows in _cover(height, self.window[0]):
            for columns in _cover(width, self.window[1]):
                total[:, rows, columns] += self.attend(qkv[:, rows, columns])
                count[:, rows, columns] += 1
        return x_BHWC * (total / count)


def _cover(size: int, window: int) -> list[slice]:
    """The fewest windows that cover `size` positions, at equal steps except for the last."""
    if window >= size:
        return [slice(0, size)]
    count = -(-size // window)
    step = -(-(size - window) // (count - 1))
    starts = [min(i * step, size - window) for i in range(count)]
    return [slice(start, start + window) for start in starts]


@register("network", "nafnet_mdta")
class NAFNetMDTA(NAFNet):
    """The whole network; by default of width 32 with the block counts of NAFNet's deblurring."""

    def __init__(
        self,
        *,
        in_channels: int = 3,
        width: int = 32,
        encoder_blocks: Sequence[int] = (1, 1, 1, 28),
        middle_blocks: int = 1,
        decoder_blocks: Sequence[int] = (1, 1, 1, 1),
        depthwise_expansion: int = 2,
        ffn_expansion: int = 2,
        heads: int = 8,
    ) -> None:
        if width * depthwise_expansion // 2 % heads:
            raise ValueError(
                f"network.heads={heads} does not divide the {width * depthwise_expansion // 2} channels of "
                "the first level's attention: change network.heads or network.width"
            )
        self.heads = heads  # set before the base class makes the attentions
        super().__init__(
            in_channels=in_channels,
            width=width,
            encoder_blocks=encoder_blocks,
            middle_blocks=middle_blocks,
            decoder_blocks=decoder_blocks,
            depthwise_expansion=depthwise_expansion,
            ffn_expansion=ffn_expansion,
        )

    def make_attention(self, channels: int) -> nn.Module:
        return GatedTransposedAttention(channels=channels, heads=self.heads, bias=True)

    @classmethod
    def infer_arguments(cls, state: Mapping[str, Tensor]) -> dict[str, int | list[int]] | None:
        """NAFNet's arguments and the number of heads."""
        heads = next((value.shape[0] for name, value in state.items() if name.endswith(".temperature")), None)
        arguments = nafnet_arguments(state)
        return None if heads is None or arguments is None else {**arguments, "heads": heads}
