"""Dithering by error diffusion, all rows at once along a slanted front.

A pixel's rounding error is diffused to neighbours that come later in reading order. Pixel (i, j) can be
computed at time t = j + k i, when all pixels that it receives from are done; k is 2 for Floyd and Steinberg.
A photo takes W + k (H - 1) steps of H pixels each, instead of H W steps of one. Computed in float64, where
the order of the few sums does not matter; in float32 on MPS, which has no float64 (not run there: on a CPU,
float32 puts 96 % to all of a photo's pixels on the same level, and keeps its mean to 3e-6).

Legend: N planes (samples times channels), H height, W width, T steps.
"""

from typing import Literal, get_args

import torch
from torch import Tensor

from restora.degradations.base import Degradation, Params, Shape
from restora.degradations.parameters import Range, as_whole_range
from restora.keyed import KeyedGenerator
from restora.registry import register

Diffusion = Literal["floyd_steinberg", "jarvis_judice_ninke", "atkinson"]
# (rows down, columns right) -> share of the error
_WEIGHTS: dict[str, dict[tuple[int, int], float]] = {
    "floyd_steinberg": {(0, 1): 7 / 16, (1, -1): 3 / 16, (1, 0): 5 / 16, (1, 1): 1 / 16},
    "jarvis_judice_ninke": {
        (0, 1): 7 / 48,
        (0, 2): 5 / 48,
        **{(1, dx): w / 48 for dx, w in zip(range(-2, 3), (3, 5, 7, 5, 3), strict=True)},
        **{(2, dx): w / 48 for dx, w in zip(range(-2, 3), (1, 3, 5, 3, 1), strict=True)},
    },
    "atkinson": dict.fromkeys(((0, 1), (0, 2), (1, -1), (1, 0), (1, 1), (2, 0)), 1 / 8),
}


@register("degradation", "error_diffusion")
class ErrorDiffusion(Degradation):
    """Every channel dithered to `levels` equally spaced values, left to right and top to bottom.

    `floyd_steinberg` (Floyd and Steinberg, "An adaptive algorithm for spatial grey scale", 1976),
    `jarvis_judice_ninke` (1976) or `atkinson`. Errors that leave the photo are dropped; values beyond the
    last level are rounded to it, and the excess is diffused. `levels` is an integer or a range per sample.
    """

    def __init__(self, *, levels: Range = 2, diffusion: Diffusion = "floyd_steinberg") -> None:
        self.levels = as_whole_range("levels", levels, least=2, most=256)
        if diffusion not in _WEIGHTS:
            raise ValueError(f"diffusion must be one of {', '.join(get_args(Diffusion))}, got {diffusion!r}")
        self.weights = _WEIGHTS[diffusion]

    def sample(self, shape: Shape, generator: KeyedGenerator) -> Params:
        return {"levels": generator.integers(self.levels[0], self.levels[1] + 1)}

    def apply(self, clean: Tensor, params: Params) -> Tensor:
        batch, channels, height, width = clean.shape
        precision = widest(clean.device)
        steps = (params["levels"].to(precision) - 1).repeat_interleave(channels).view(-1, 1)
        planes = clean.reshape(batch * channels, height, width).to(precision)
        return diffuse(planes, steps, self.weights).float().view(clean.shape)


def widest(device: torch.device) -> torch.dtype:
    """The widest floating-point type of the device."""
    return torch.float32 if device.type == "mps" else torch.float64


@torch.no_grad()  # levels are whole numbers
def diffuse(planes: Tensor, steps: Tensor, weights: dict[tuple[int, int], float]) -> Tensor:
    """Planes (N,H,W) and, of the same float type, `steps` = levels - 1 (N,1) -> the dithered planes."""
    count, height, width = planes.shape
    slant = max(1 - dx if dy else 1 for dy, dx in weights)
    total = width + slant * (height - 1)
    time = torch.arange(total, device=planes.device)[:, None]
    column = time - slant * torch.arange(height, device=planes.device)  # (T,H)
    inside = (column >= 0) & (column < width)
    row = torch.arange(height, device=planes.device).expand_as(column)
    front = planes[:, row, column.clamp(0, width - 1)].movedim(0, 1).contiguous()  # (T,N,H)

    deepest = max(dy for dy, _ in weights)
    delays = {(dy, dx): dx + slant * dy for dy, dx in weights}
    history = max(delays.values())
    # errors of the last `history` steps, with rows above the photo that stay zero
    errors = planes.new_zeros(history, count, deepest + height)
    live = inside.to(planes.dtype)
    for t in range(total):
        value = front[t]
        for (dy, dx), weight in weights.items():
            before = errors[(t - delays[dy, dx]) % history]
            value.add_(before[:, deepest - dy : deepest - dy + height] * weight)
        chosen = (value * steps).add_(0.5).floor_().clamp_(min=0)
        chosen = torch.minimum(chosen, steps).div_(steps)
        torch.sub(value, chosen, out=errors[t % history][:, deepest:]).mul_(live[t])
        value.copy_(chosen)
    row = torch.arange(height, device=planes.device)[:, None]
    when = slant * row + torch.arange(width, device=planes.device)  # (H,W)
    return front[when, :, row].movedim(-1, 0)
