"""Rectangular holes at random places."""

import math

import torch

from restora.degradations.base import Params, Shape
from restora.degradations.missing.masking import Masking
from restora.degradations.parameters import Range, as_number, as_range
from restora.keyed import KeyedGenerator
from restora.registry import register


@register("degradation", "random_rectangles")
class RandomRectangles(Masking):
    """`count` rectangles, each covering a share `area` of the photo with height / width = `aspect`.

    Both are drawn per rectangle.

    With one rectangle, area [0.02, 0.4] and aspect [0.3, 3.3] it is Random Erasing (Zhong et al., AAAI
    2020). The aspect is drawn log-uniformly; a rectangle too long for the photo is cut to it.
    """

    def __init__(
        self, *, count: int = 1, area: Range = (0.02, 0.4), aspect: Range = (0.3, 3.3), fill: float = 0.0
    ) -> None:
        if count < 1:
            raise ValueError(f"count of rectangles must be at least 1, got {count}")
        self.count, self.fill = count, as_number("fill", fill, least=0, most=1)
        self.area = as_range("area", area, least=0, most=1)
        low, high = as_range("aspect", aspect, least=1e-3)
        self.log_aspect = (math.log(low), math.log(high))

    def sample(self, shape: Shape, generator: KeyedGenerator) -> Params:
        height, width = shape[-2:]
        area = generator.uniform((self.count,), *self.area) * (height * width)
        aspect = generator.uniform((self.count,), *self.log_aspect).exp()
        tall = (area * aspect).sqrt().round().clamp_(max=height)
        wide = (area / aspect).sqrt().round().clamp_(max=width)
        top = (generator.uniform((self.count,)) * (height - tall + 1)).floor()
        left = (generator.uniform((self.count,)) * (width - wide + 1)).floor()
        row = torch.arange(height, device=generator.device)
        column = torch.arange(width, device=generator.device)
        in_rows = (row >= top[..., None]) & (row < (top + tall)[..., None])  # (B,count,H)
        in_columns = (column >= left[..., None]) & (column < (left + wide)[..., None])  # (B,count,W)
        # a pixel is lost if any rectangle has both its row and its column
        hits = in_rows.float().mT @ in_columns.float()
        return {"mask": (hits < 0.5)[:, None]}
