"""Scratches and dust of a worn print or film."""

import math

import torch
from torch import Tensor

from restora.degradations.base import Degradation, Params, Shape
from restora.degradations.keyed import KeyedGenerator
from restora.degradations.parameters import Range, as_range


class Scratches(Degradation):
    """Long thin scratches and `dust` specks, light or dark, with soft edges.

    The number of scratches is 0 to `count` with equal chance. A scratch runs along the photo's height, tilted
    by up to `tilt` degrees and bent like a sine of random period, over a random part of it; it fades in and
    out along its way. `width` is that of scratches in pixels; specks are discs of up to three times it.
    `opacity` is that of the middle of a scratch. After the line artefacts of old film (Kokaram, "Motion
    picture restoration", 1998). The condition is the mask of what was not touched: 1 = known.
    """

    undamaged = (1.0,)

    def __init__(
        self,
        *,
        count: int = 6,
        dust: int = 12,
        width: Range = (0.6, 2.0),
        opacity: Range = (0.5, 1.0),
        tilt: float = 15.0,
    ) -> None:
        if count < 0 or dust < 0:
            raise ValueError(f"count and dust are at least 0, got {count} and {dust}")
        self.count, self.dust, self.tilt = count, dust, float(tilt)
        self.width = as_range("width", width, least=0.1)
        self.opacity = as_range("opacity", opacity, least=0, most=1)

    def sample(self, shape: Shape, generator: KeyedGenerator) -> Params:
        """The layer itself is drawn here, once for both the photo and the mask: cover and light, (B,1,H,W)
        each.
        """
        batch, _, height, width = shape
        y = torch.arange(height, device=generator.device).add(0.5).view(1, -1, 1)
        x = torch.arange(width, device=generator.device).add(0.5).view(1, 1, -1)
        cover = torch.zeros(batch, height, width, device=generator.device)
        light = torch.ones_like(cover)
        drawn = generator.fork("scratches")
        present = generator.fork("number").uniform((1,)) * (self.count + 1)
        for index in range(self.count):
            own = self._scratch(drawn, y / height, x, height) * (index + 1 <= present.view(-1, 1, 1))
            light = torch.where(own > cover, _light(drawn), light)
            cover = torch.maximum(cover, own)
        drawn = generator.fork("dust")
        for _ in range(self.dust):
            own = self._speck(drawn, y, x)
            light = torch.where(own > cover, _light(drawn), light)
            cover = torch.maximum(cover, own)
        return {"cover": cover[:, None], "light": light[:, None]}

    def apply(self, clean: Tensor, params: Params) -> Tensor:
        return torch.lerp(clean, params["light"], params["cover"])

    def condition(self, clean: Tensor, params: Params) -> Tensor:
        return (params["cover"] < 1 / 255).to(clean.dtype)

    def _scratch(self, g: KeyedGenerator, share: Tensor, x: Tensor, height: int) -> Tensor:
        """(B,H,W) cover; `share` is the place along the height, 0 to 1."""
        slope = math.tan(math.radians(self.tilt)) * height
        start = _draw(g, 0, 1) * x.shape[-1]
        path = start + _draw(g, -slope, slope) * (share - 0.5)
        path = path + _draw(g, 0, 4) * torch.sin(_draw(g, 2, 9) * share + _draw(g, 0, 6.28))
        middle, reach = _draw(g, 0, 1), _draw(g, 0.15, 0.8)
        along = (1.5 * (1 - (share - middle).abs() / reach)).clamp_(0, 1)
        edge = (_draw(g, *self.width) / 2 + 0.5 - (x - path).abs()).clamp_(0, 1)
        return edge * (along * _draw(g, *self.opacity))

    def _speck(self, g: KeyedGenerator, y: Tensor, x: Tensor) -> Tensor:
        centre_y, centre_x = _draw(g, 0, y.numel()), _draw(g, 0, x.numel())
        radius = _draw(g, *self.width) * _draw(g, 0.5, 1.5)
        distance = ((y - centre_y).square() + (x - centre_x).square()).sqrt_()
        return distance.sub_(radius + 0.5).neg_().clamp_(0, 1).mul_(_draw(g, *self.opacity))


def _draw(generator: KeyedGenerator, low: float, high: float) -> Tensor:
    return generator.uniform((), low, high).view(-1, 1, 1)


def _light(generator: KeyedGenerator) -> Tensor:
    """Two in three are bare paper, the others dirt: (B,1,1)."""
    draw = _draw(generator, 0, 1)
    return torch.where(draw < 2 / 3, 0.9 + 0.1 * draw, 0.2 * draw)
