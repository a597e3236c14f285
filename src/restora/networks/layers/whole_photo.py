"""What a degradation does to a whole photo alike, found from the whole photo: how sharp it is, how faded.

The mean of learnt features over all positions, whatever their number, is a learnt histogram, and a perceptron
turns it into what the network needs (M. Zaheer et al., "Deep Sets", NeurIPS 2017). It starts at the identity.

Legend: B samples, C channels, H height, W width, F features.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CELL = 8
"""The side in pixels of the cells whose colours are compared: noise and scratches average out."""


class WholePhoto(nn.Module):
    """Base of modules that depend on the whole photo through `statistic` alone: a mean over all positions.

    For photos that are restored in tiles it is replaced by that of the photo (`artifact/global_statistics`).
    """

    def __init__(self, *, features: int, outputs: int) -> None:
        super().__init__()
        last = nn.Linear(features, outputs)
        self.of_photo = nn.Sequential(nn.Linear(features, features), nn.ReLU(), last)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def statistic(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,F), a mean over the positions."""
        raise NotImplementedError


class ColourBalance(WholePhoto):
    """The colours of each photo after one affine map of its own: (B,3,H,W), multiples of `CELL` -> same."""

    def __init__(self, features: int = 64) -> None:
        super().__init__(features=features, outputs=12)
        self.of_cell = nn.Sequential(
            nn.Conv2d(3, features, 1), nn.ReLU(), nn.Conv2d(features, features, 1), nn.ReLU()
        )

    def statistic(self, x: Tensor) -> Tensor:
        histogram: Tensor = self.of_cell(F.avg_pool2d(x, CELL)).mean((2, 3))
        return histogram

    def forward(self, x: Tensor) -> Tensor:
        change = self.of_photo(self.statistic(x)).to(x.dtype).reshape(-1, 3, 4, 1, 1)
        red, green, blue = x.split(1, 1)
        # not a matrix product, which mixed precision would round to bfloat16
        return x + (
            change[:, :, 0] * red + change[:, :, 1] * green + change[:, :, 2] * blue + change[:, :, 3]
        )


class FeatureScales(WholePhoto):
    """A factor for each channel of features of `scaled` channels, from features of `seen` channels.

    The factors depend on how the features' means relate to each other, not on the contrast of the photo.
    """

    def __init__(self, *, seen: int, scaled: Sequence[int], features: int = 48) -> None:
        super().__init__(features=features, outputs=sum(scaled))
        self.scaled = list(scaled)
        self.of_place = nn.Sequential(nn.Conv2d(seen, features, 1), nn.ReLU())

    def statistic(self, x: Tensor) -> Tensor:
        means: Tensor = self.of_place(x).mean((2, 3))
        return means

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B,`seen`,H,W) -> (B,C,1,1) for each C of `scaled`."""
        means = self.statistic(x)
        means = means.to(torch.promote_types(means.dtype, torch.float32))
        relative = means / (means.square().mean(1, keepdim=True).sqrt() + 1e-4)
        own = next(self.of_photo.parameters()).dtype
        factors = (1 + self.of_photo(relative.to(own))).to(x.dtype)
        return [factor[..., None, None] for factor in factors.split(self.scaled, 1)]
