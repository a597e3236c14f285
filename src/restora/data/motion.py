"""Moving photos: a camera that pans, turns, zooms and shakes over a photo, so that every frame is known.

Enters: photos on the device and a key for each. Leaves: T frames of each, whose middle one is the photo
itself. Frame t shows at a pixel p what the photo has at A_t p + d_t, where A_t turns and scales about the
middle of the photo: the motion is known to any fraction of a pixel. Frames are interpolated bicubically
(R. Keys, "Cubic convolution interpolation for digital image processing", IEEE TASSP 1981, with the parameter
-0.75 of torch, whose shift of up to 0.05 pixels is compensated), and show the photo mirrored beyond its
border. Note: the whole photo moves as one; nothing in it moves
by itself or hides anything.

Legend: B photos, T frames, C channels, H height, W width.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from restora.keyed import KeyedGenerator

Params = Mapping[str, Tensor]
_SUPPORT = 2
"""Pixels beyond a place that bicubic interpolation reads."""
_MOST = {"pan": 64.0, "shake": 64.0, "turn": 10.0, "zoom": 0.1}


class CameraMotion:
    """The largest values of a motion; each clip draws its own from 0 up, and a direction.

    `pan` is the speed in pixels per frame, `turn` in degrees per frame, `zoom` the relative change of size
    per frame; all three are constant within a clip. `shake` is the largest further shift of a frame in
    pixels, along each axis.
    """

    def __init__(
        self, *, pan: float = 4.0, shake: float = 0.5, turn: float = 0.5, zoom: float = 0.01
    ) -> None:
        for name, value in (("pan", pan), ("shake", shake), ("turn", turn), ("zoom", zoom)):
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not 0 <= value <= _MOST[name]:
                raise ValueError(f"{name} must be a number from 0 to {_MOST[name]:g}, got {value!r}")
        self.pan, self.shake, self.turn, self.zoom = float(pan), float(shake), float(turn), float(zoom)

    @classmethod
    def of(cls, values: Mapping[str, Any] | None, *, key: str = "data.motion") -> "CameraMotion":
        """The motion of a configuration at `key`; None has the default values.

        Raises ValueError for other names and values.
        """
        given = dict(values or {})
        if unknown := sorted(given.keys() - _MOST.keys()):
            raise ValueError(f"{key}.{unknown[0]} does not exist: use {', '.join(_MOST)}")
        try:
            return cls(**given)
        except ValueError as error:
            raise ValueError(f"{key}.{error}") from error

    def margin(self, frames: int, side: int) -> int:
        """Pixels around a square of `side` that its frames may show."""
        time, corner = frames // 2, side / math.sqrt(2)
        angle = min(math.radians(self.turn) * time, math.pi / 2)
        stretched = corner * (math.exp(self.zoom * time) - 1 + angle)
        return math.ceil(self.pan * time + self.shake + stretched) + _SUPPORT

    def sample(self, frames: int, generator: KeyedGenerator) -> Params:
        """The motion of each clip: `velocity` (B,2) x and y, `shake` (B,T,2), `turn` (B,), `zoom` (B,)."""
        angle = generator.uniform((), 0.0, 2 * math.pi)
        speed = generator.uniform((), 0.0, self.pan)
        return {
            "velocity": torch.stack((speed * angle.cos(), speed * angle.sin()), dim=1),
            "shake": generator.uniform((frames, 2), -self.shake, self.shake),
            "turn": generator.uniform((), -1.0, 1.0) * math.radians(self.turn),
            "zoom": generator.uniform((), -1.0, 1.0) * self.zoom,
        }

    def places(self, params: Params, frame: int, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Where the pixels of a frame lie in the middle frame: x and y from its middle, (B,H,W) each."""
        frames = params["shake"].shape[1]
        time, device = frame - frames // 2, params["shake"].device
        y = (torch.arange(height, device=device) - (height - 1) / 2)[:, None]
        x = (torch.arange(width, device=device) - (width - 1) / 2)[None, :]
        if time == 0:
            batch = len(params["zoom"])
            return x.expand(batch, height, width), y.expand(batch, height, width)
        scale = (params["zoom"] * time).exp().view(-1, 1, 1)
        cos, sin = (scale * f(params["turn"] * time).view(-1, 1, 1) for f in (torch.cos, torch.sin))
        shift = params["velocity"] * time + params["shake"][:, frame]  # (B,2)
        return cos * x - sin * y + shift[:, 0, None, None], sin * x + cos * y + shift[:, 1, None, None]

    def frames(self, photos: Tensor, params: Params, *, margin: int = 0) -> Tensor:
        """float32 (B,C,H+2m,W+2m) in [0,1] -> (B,T,C,H,W), with a margin of m pixels."""
        batch, channels, *whole = photos.shape
        height, width = (side - 2 * margin for side in whole)
        count = params["shake"].shape[1]
        out = photos.new_empty(batch, count, channels, height, width)
        for frame in range(count):
            if frame == count // 2:
                out[:, frame] = photos[..., margin : margin + height, margin : margin + width]
                continue
            x, y = self.places(params, frame, height, width)
            sides = zip((x, y), reversed(whole), strict=True)
            grid = torch.stack([_normalised(place, side) for place, side in sides], dim=-1)  # (B,H,W,2)
            moved = F.grid_sample(
                photos, grid, mode="bicubic", padding_mode="reflection", align_corners=False
            )
            out[:, frame] = moved.clamp_(0, 1)
        return out


def _normalised(places: Tensor, side: int) -> Tensor:
    """Places in pixels from the middle of a side -> in [-1,1], so that interpolation is centred on them.

    The kernel with the parameter -0.75 is centred not on the fraction f of a pixel but on
    m(f) = f + f (1-f) (1-2f) / 2; three steps of Newton's method invert m to 1e-6.
    """
    places = places + (side - 1) / 2
    whole = places.floor()
    wanted = places - whole
    f = wanted
    for _ in range(3):
        excess = f + f * (1 - f) * (0.5 - f) - wanted
        f = f - excess / (1.5 - 3 * f * (1 - f))
    return (whole + f + 0.5) * (2 / side) - 1
