"""Scratches and dust of a worn print or film."""

import math

import torch
from torch import Tensor

from restora.degradations.base import Degradation, Params, Shape
from restora.degradations.parameters import Range, as_number, as_range
from restora.keyed import KeyedGenerator
from restora.registry import register


@register("degradation", "scratches")
class Scratches(Degradation):
    """Long thin scratches and `dust` specks, light or dark, with soft edges.

    The number of scratches is 0 to `count` with equal chance. A scratch runs along the photo's height, tilted
    by up to `tilt` degrees and bent like a sine of random period, over a random part of it; it fades in and
    out along its way. `width` is that of scratches in pixels; specks are discs of up to three times it.
    `opacity` is that of the middle of a scratch. After the line artefacts of old film (Kokaram, "Motion
    picture restoration", 1998). The condition is the mask of untouched pixels: 1 = known.
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
            raise ValueError(f"count and dust must be at least 0, got {count} and {dust}")
        self.count, self.dust = count, dust
        self.tilt = as_number("tilt", tilt, least=0, most=80)
        self.width = as_range("width", width, least=0.1)
        self.opacity = as_range("opacity", opacity, least=0, most=1)

    def sample(self, shape: Shape, generator: KeyedGenerator) -> Params:
        """Draws the layer itself, once for both the photo and the mask.

        Cover and light are (B,1,H,W) each.
        """
        batch, _, height, width = shape
        layer = _Layer(batch, height, width, generator.device)
        drawn = generator.fork("scratches")
        present = generator.fork("number").uniform((1,)) * (self.count + 1)
        for index in range(self.count):
            column, own = self._scratch(drawn, height, width)
            own = own * (index + 1 <= present.view(-1, 1, 1))
            layer.draw(
                torch.arange(height, device=generator.device).view(1, -1, 1), column, own, _light(drawn)
            )
        drawn = generator.fork("dust")
        for _ in range(self.dust):
            row, column, own = self._speck(drawn, height, width)
            layer.draw(row, column, own, _light(drawn))
        return {"cover": layer.inside(layer.cover), "light": layer.inside(layer.light)}

    def apply(self, clean: Tensor, params: Params) -> Tensor:
        return torch.lerp(clean, params["light"], params["cover"])

    def condition(self, clean: Tensor, params: Params) -> Tensor:
        return (params["cover"] < 1 / 255).to(clean.dtype)

    def _scratch(self, g: KeyedGenerator, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Columns and cover of the pixels around the path, (B,H,k) each."""
        share = torch.arange(height, device=g.device).add(0.5).view(1, -1, 1) / height
        slope = math.tan(math.radians(self.tilt)) * height
        start = _draw(g, 0, 1) * width
        path = start + _draw(g, -slope, slope) * (share - 0.5)
        path = path + _draw(g, 0, 4) * torch.sin(_draw(g, 2, 9) * share + _draw(g, 0, 6.28))
        middle, reach = _draw(g, 0, 1), _draw(g, 0.15, 0.8)
        along = (1.5 * (1 - (share - middle).abs() / reach)).clamp_(0, 1)
        column = _around(path, self.width[1] / 2 + 0.5)
        edge = (_draw(g, *self.width) / 2 + 0.5 - (column + 0.5 - path).abs()).clamp_(0, 1)
        return column, edge * (along * _draw(g, *self.opacity))

    def _speck(self, g: KeyedGenerator, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
        """Rows (B,k,1), columns (B,1,k) and cover (B,k,k) of the pixels around a speck."""
        centre_y, centre_x = _draw(g, 0, height), _draw(g, 0, width)
        radius = _draw(g, *self.width) * _draw(g, 0.5, 1.5)
        column = _around(centre_x, 1.5 * self.width[1] + 0.5)
        row = _around(centre_y, 1.5 * self.width[1] + 0.5).mT
        distance = ((row + 0.5 - centre_y).square() + (column + 0.5 - centre_x).square()).sqrt_()
        return row, column, distance.sub_(radius + 0.5).neg_().clamp_(0, 1).mul_(_draw(g, *self.opacity))


class _Layer:
    """The cover of a photo by marks, and their light.

    Marks are a few pixels wide, so only their pixels are visited; pixels beyond the photo go to a border of
    one, which is cut off again.
    """

    def __init__(self, batch: int, height: int, width: int, device: torch.device) -> None:
        self.height, self.width = height, width
        self.cover = torch.zeros(batch, (height + 2) * (width + 2), device=device)
        self.light = torch.ones_like(self.cover)

    def draw(self, row: Tensor, column: Tensor, cover: Tensor, light: Tensor) -> None:
        """Adds a mark: where it covers more than earlier marks, its light (B,1,1) is shown."""
        row = (row + 1).clamp(0, self.height + 1).long()
        column = (column + 1).clamp(0, self.width + 1).long()
        place = (row * (self.width + 2) + column).expand_as(cover).flatten(1)
        cover, before = cover.flatten(1), self.cover.gather(1, place)
        shown = torch.where(cover > before, light.flatten(1), self.light.gather(1, place))
        self.light.scatter_(1, place, shown)
        self.cover.scatter_(1, place, torch.maximum(cover, before))

    def inside(self, canvas: Tensor) -> Tensor:
        """The part over the photo, (B,1,H,W)."""
        return canvas.view(-1, 1, self.height + 2, self.width + 2)[..., 1:-1, 1:-1]


def _around(centre: Tensor, reach: float) -> Tensor:
    """The integers within about `reach` of `centre` (B,n,1), as (B,n,k)."""
    side = math.ceil(reach)
    return centre.floor() + torch.arange(-side, side + 1, device=centre.device)


def _draw(generator: KeyedGenerator, low: float, high: float) -> Tensor:
    return generator.uniform((), low, high).view(-1, 1, 1)


def _light(generator: KeyedGenerator) -> Tensor:
    """Two in three marks are bare paper (light), the others dirt (dark): (B,1,1)."""
    draw = _draw(generator, 0, 1)
    return torch.where(draw < 2 / 3, 0.9 + 0.1 * draw, 0.2 * draw)
