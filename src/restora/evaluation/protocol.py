"""The scoring protocol: which planes of a photo, after which rounding, inside which border.

Enters: a restored photo and its original, float (B,C,H,W) on the [0,1] scale. Leaves: the two tensors that
the metrics compare. Every convention here is one that published figures depend on; `Protocol` is a value
that is written beside the figures.

Legend: B photos, C channels, H height, W width.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from torch import Tensor

from restora.image import luminance, round_to_8_bits

Color = Literal["gray", "rgb", "y"]
"""gray: MATLAB's rgb2gray (0 to 255); rgb: as stored; y: the luminance Y of ITU-R BT.601 (16 to 235)."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How figures are computed from a restored photo.

    `border` pixels are cut off on each side; `round_output` rounds the restored photo to 8 bits, as saving
    it would; `y_rounded` also rounds Y to 8 bits, in the original too, as MATLAB's rgb2ycbcr of an 8-bit
    photo does.
    """

    color: Color
    border: int = 0
    round_output: bool = True
    y_rounded: bool = False

    def __post_init__(self) -> None:
        if self.color not in get_args(Color):
            raise ValueError(f"color must be one of {', '.join(get_args(Color))}, got {self.color!r}")
        if self.border < 0:
            raise ValueError(f"border must be a number of pixels >= 0, got {self.border}")

    @classmethod
    def of_run(cls, node: Mapping[str, Any] | None, *, channels: int, scale: int) -> "Protocol":
        """How a run is scored: by `protocol` of its configuration; null values follow from the data.

        The defaults are all channels as stored, without a border of `scale` pixels where a network enlarges.
        Raises ValueError for planes that photos of so many channels do not have.
        """
        given = {key: value for key, value in dict(node or {}).items() if value is not None}
        known = [item.name for item in fields(cls)]
        for key in given:
            if key not in known:
                raise ValueError(f"protocol.{key} does not exist: use one of {', '.join(known)}")
        usual = "gray" if channels == 1 else "rgb"
        color = given.setdefault("color", usual)
        given.setdefault("border", scale if scale > 1 else 0)
        if color != usual and not (color == "y" and channels == 3):
            fix = f"set protocol.color={usual}" + (" or y" if channels == 3 else "")
            raise ValueError(f"protocol.color={color}, but the photos have {channels} channel(s): {fix}")
        for key, kind in (("border", int), ("round_output", bool), ("y_rounded", bool)):
            if key in given and type(given[key]) is not kind:
                words = "a whole number" if kind is int else "true or false"
                raise ValueError(f"protocol.{key} must be {words}, got {given[key]}")
        return cls(**given)

    def planes(self, photo: Tensor, *, rounded: bool) -> Tensor:
        """The planes that are scored, clamped to [0,1]: (B,C,H,W) -> (B,C',H-2*border,W-2*border).

        `rounded`: whether this photo is rounded to 8 bits. A photo of one channel is its own Y.
        """
        photo = photo.clamp(0, 1)
        if rounded:
            photo = round_to_8_bits(photo)
        if self.color == "y":
            photo = luminance(photo) if photo.shape[1] == 3 else photo
            photo = round_to_8_bits(photo) if self.y_rounded else photo
        return self._inside(photo)

    def _inside(self, photo: Tensor) -> Tensor:
        height, width = photo.shape[-2:]
        if min(height, width) <= 2 * self.border:
            raise ValueError(
                f"a border of {self.border} pixels leaves nothing of {height}x{width}: set a border of "
                f"{(min(height, width) - 1) // 2} or less, or leave such small photos out"
            )
        return photo[..., self.border : height - self.border, self.border : width - self.border]
