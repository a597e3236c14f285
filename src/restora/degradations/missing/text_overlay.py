"""Text printed over a photo: captions, dates, watermarks."""

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from restora.degradations.base import Degradation, Params, Shape
from restora.degradations.parameters import Range, as_number, as_range, per_sample
from restora.keyed import KeyedGenerator
from restora.registry import register

_TITLES = ("Holiday", "Garden party", "Harbour", "Market day", "The bridge", "A concert", "Sold out")
_PLACES = (
    "in Paris",
    "in Lisbon",
    "in Athens",
    "in Vienna",
    "by the river",
    "at noon",
    "on the hill",
    "before rain",
)
_DATES = ("1968", "12.08.1976", "MAY 1981", "7/14/99", "2004:06:21 17:45", "No. 35", "(c) archive", "SAMPLE")
_ATLAS_HEIGHT = 32


@register("degradation", "text_overlay")
class TextOverlay(Degradation):
    """`count` lines of text in random places, sizes, tilts and colours, blended with `opacity`.

    `height` is that of a line as a share of the photo's shorter side, `tilt` its largest slope in degrees. A
    line lies within the photo unless it is longer. `texts` replaces the built-in lines. Glyphs come from
    Pillow's own scalable font and are drawn once; a sample picks lines and maps them over the photo
    bilinearly. Removing text from a photo is a task of inpainting since Bertalmio et al. ("Image inpainting",
    SIGGRAPH 2000). The condition is the mask of the pixels that no letter touches: 1 = known.
    """

    undamaged = (1.0,)
    centres = frozenset({"median"})  # letters cover less than half

    def __init__(
        self,
        *,
        count: int = 4,
        height: Range = (0.05, 0.12),
        tilt: float = 10.0,
        opacity: Range = (0.6, 1.0),
        texts: Sequence[str] | None = None,
    ) -> None:
        if count < 1:
            raise ValueError(f"count of lines must be at least 1, got {count}")
        self.count, self.tilt = count, as_number("tilt", tilt, least=0, most=180)
        self.height = as_range("height", height, least=1e-3, most=1)
        self.opacity = as_range("opacity", opacity, least=0, most=1)
        self.texts = _sentences() if texts is None else tuple(str(text) for text in texts)
        if not self.texts:
            raise ValueError("texts is empty: give at least one line, or leave it out")

    def sample(self, shape: Shape, generator: KeyedGenerator) -> Params:
        """The layer itself is drawn here, once for photo and mask: cover (B,1,H,W) and colour (B,C,H,W)."""
        batch, channels, height, width = shape
        atlas, filled = _atlas(self.texts, generator.device)
        y = torch.arange(height, device=generator.device).add(0.5).view(1, -1, 1)
        x = torch.arange(width, device=generator.device).add(0.5).view(1, 1, -1)
        cover = torch.zeros(batch, 1, height, width, device=generator.device)
        colour = torch.zeros(batch, channels, 1, 1, device=generator.device).expand(shape)
        for _ in range(self.count):
            line = generator.integers(0, len(self.texts))
            tall = generator.uniform((), *self.height).view(-1, 1, 1) * min(height, width)
            long = tall * (atlas.shape[-1] / _ATLAS_HEIGHT)
            angle = torch.deg2rad(generator.uniform((), -self.tilt, self.tilt)).view(-1, 1, 1)
            written = long * filled[line].view(-1, 1, 1)
            down = y - _middle(generator, height, written * angle.sin().abs() + tall * angle.cos())
            right = x - _middle(generator, width, written * angle.cos() + tall * angle.sin().abs())
            u = (right * angle.cos() - down * angle.sin() + written / 2) / long
            v = (right * angle.sin() + down * angle.cos()) / tall + 0.5
            grid = torch.stack((u, v), -1).mul_(2).sub_(1)
            own = F.grid_sample(atlas[line], grid, align_corners=False)
            own = own * per_sample(generator.uniform((), *self.opacity))
            ink = _ink(generator, channels)
            colour = torch.where(own > cover, ink, colour)
            cover = torch.maximum(cover, own)
        return {"cover": cover, "colour": colour}

    def apply(self, clean: Tensor, params: Params) -> Tensor:
        return torch.lerp(clean, params["colour"], params["cover"])

    def condition(self, clean: Tensor, params: Params) -> Tensor:
        return (params["cover"] < 1 / 255).to(clean.dtype)


def _middle(generator: KeyedGenerator, side: int, extent: Tensor) -> Tensor:
    """The position of a line's middle along a side of the photo, in pixels.

    `extent` (B,1,1) lies within the side; a longer one is centred.
    """
    room = (side - extent).clamp(min=0)
    return side / 2 + room * generator.uniform((1, 1), -0.5, 0.5)


def _ink(generator: KeyedGenerator, channels: int) -> Tensor:
    """White, black or any colour, a third each: (B,C,1,1)."""
    kind, any_colour = generator.uniform((1,)), generator.uniform((channels,))
    ink = torch.where(kind < 1 / 3, 1.0, torch.where(kind < 2 / 3, 0.0, any_colour))
    return ink[..., None, None]


def _sentences() -> tuple[str, ...]:
    titled = (f"{title} {place}" for title, place in zip(_TITLES * 8, _PLACES * 7, strict=True))
    return (*titled, *_DATES)


@lru_cache(maxsize=8)
def _atlas(texts: tuple[str, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Every line's coverage, (lines,1,h,w), and the share of w that each fills, (lines,)."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(_ATLAS_HEIGHT * 0.75)
    lengths = [font.getbbox(text)[2] + 4 for text in texts]
    width = int(max(lengths))
    strips = []
    for text in texts:
        strip = Image.new("L", (width, _ATLAS_HEIGHT))
        ImageDraw.Draw(strip).text((2, _ATLAS_HEIGHT // 2), text, 255, font=font, anchor="lm")
        strips.append(torch.frombuffer(bytearray(strip.tobytes()), dtype=torch.uint8))
    atlas = torch.stack(strips).view(len(strips), 1, _ATLAS_HEIGHT, width).float().div_(255)
    return atlas.to(device), torch.tensor([length / width for length in lengths]).to(device)
