"""Camera noise: on the sensor's mosaic, before demosaicking and the tone curve.

Noise that is white on the sensor is neither white nor equally strong in the photo: each pixel measures one
colour, the others are interpolated, and dark tones are lifted. T. Brooks et al., "Unprocessing Images for
Learned Raw Denoising", CVPR 2019 (inverse tones, gains, levels of noise of phones); H. Malvar, L. He and
R. Cutler, "High-Quality Linear Interpolation for Demosaicing of Bayer-Patterned Color Images", ICASSP 2004.

Legend: B samples, C channels, H height, W width.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from restora.degradations.base import Degradation, Params, Severity, Shape
from restora.degradations.parameters import Range, as_range, constant, per_sample
from restora.keyed import KeyedGenerator
from restora.registry import register

_RED_GAINS, _BLUE_GAINS = (1.9, 2.4), (1.5, 1.9)
"""The white-balance gains of red and blue in daylight (Brooks et al., section 3.3)."""
_READ_SLOPE, _READ_OFFSET, _READ_SPREAD = 2.18, 1.20, 0.26
"""log variance of read noise over log of shot noise, with its scatter (Brooks et al., equation 9)."""
_GAMMA = 2.2
_FILTERS = (
    # green where red or blue was measured
    ((0, 0, -1, 0, 0), (0, 0, 2, 0, 0), (-1, 2, 4, 2, -1), (0, 0, 2, 0, 0), (0, 0, -1, 0, 0)),
    # red or blue at a green whose row has it
    ((0, 0, 0.5, 0, 0), (0, -1, 0, -1, 0), (-1, 4, 5, 4, -1), (0, -1, 0, -1, 0), (0, 0, 0.5, 0, 0)),
    # red or blue at a green whose column has it
    ((0, 0, -1, 0, 0), (0, -1, 4, -1, 0), (0.5, 0, 5, 0, 0.5), (0, -1, 4, -1, 0), (0, 0, -1, 0, 0)),
    # red at blue, and blue at red
    ((0, 0, -1.5, 0, 0), (0, 2, 0, 2, 0), (-1.5, 0, 6, 0, -1.5), (0, 2, 0, 2, 0), (0, 0, -1.5, 0, 0)),
)
"""Malvar, He and Cutler's filters, in eighths."""


@register("degradation", "camera_noise")
class CameraNoise(Degradation):
    """Photon and read noise on a Bayer sensor, then demosaicking and tone curve; clipped to [0,1].

    `shot_noise` is the variance of a pixel over its light, which is 1 at white: a number, or a range drawn
    log-uniformly; the read noise is drawn around a function of it. Photos of three channels go through the
    Bayer mosaic; others, which have no colours, only through noise and tone curve.
    """

    def __init__(self, *, shot_noise: Range = (1e-4, 0.012)) -> None:
        self.shot_noise = as_range("shot_noise", shot_noise, least=1e-8, most=1)

    @property
    def severity(self) -> Severity:
        return Severity("shot_noise", *self.shot_noise)

    def sample(self, shape: Shape, generator: KeyedGenerator) -> Params:
        shot = generator.uniform((), *map(math.log, self.shot_noise))
        read = _READ_SLOPE * shot + _READ_OFFSET + _READ_SPREAD * generator.normal()
        return {
            "shot": shot.exp(),
            "read": read.exp(),
            "red_gain": generator.uniform((), *_RED_GAINS),
            "blue_gain": generator.uniform((), *_BLUE_GAINS),
            "corner": generator.integers(0, 4),
            "key": generator.next_keys(),
        }

    def apply(self, clean: Tensor, params: Params) -> Tensor:
        light = _untoned(clean.clamp(0, 1))
        noise = KeyedGenerator(params["key"])
        if clean.shape[1] != 3:
            return _toned(_measured(light, params, noise))
        ones = torch.ones_like(params["red_gain"])
        gains = torch.stack((params["red_gain"], ones, params["blue_gain"]), 1)[:, :, None, None]
        red, blue = _places(params["corner"], clean.shape[-2:])
        light = light / gains
        mosaic = torch.where(red, light[:, :1], torch.where(blue, light[:, 2:], light[:, 1:2]))
        return _toned(demosaiced(_measured(mosaic, params, noise), red, blue) * gains)


def demosaiced(mosaic: Tensor, red: Tensor, blue: Tensor) -> Tensor:
    """(B,1,H,W), and where red and blue were measured (B,1,H,W) -> (B,3,H,W)."""
    filters = constant(_FILTERS, mosaic.device)[:, None] / 8
    height, width = mosaic.shape[-2:]
    # two pixels of padding on each side: reflection continues the Bayer pattern
    padded = F.pad(mosaic, (2, 2, 2, 2), mode="reflect" if min(height, width) > 2 else "replicate")
    green, row, column, diagonal = F.conv2d(padded, filters).split(1, dim=1)
    red_row = red.any(dim=3, keepdim=True)  # (B,1,H,1): rows that have red have no blue
    coloured = red | blue
    reds = torch.where(red, mosaic, torch.where(blue, diagonal, torch.where(red_row, row, column)))
    blues = torch.where(blue, mosaic, torch.where(red, diagonal, torch.where(red_row, column, row)))
    return torch.cat((reds, torch.where(coloured, green, mosaic), blues), dim=1)


def _places(corner: Tensor, size: torch.Size) -> tuple[Tensor, Tensor]:
    """Masks of the red and of the blue pixels of a Bayer pattern by its first corner, (B,1,H,W) each."""
    down, right = (corner // 2)[:, None, None, None], (corner % 2)[:, None, None, None]
    rows = torch.arange(size[0], device=corner.device)[:, None]
    columns = torch.arange(size[1], device=corner.device)
    odd_row, odd_column = (rows + down) % 2 == 1, (columns + right) % 2 == 1
    return ~odd_row & ~odd_column, odd_row & odd_column


def _measured(light: Tensor, params: Params, noise: KeyedGenerator) -> Tensor:
    """Light with photon noise (variance in proportion to it) and read noise."""
    variance = light * per_sample(params["shot"]) + per_sample(params["read"])
    return noise.normal(light.shape[1:]).mul_(variance.sqrt_()).add_(light)


def _untoned(photo: Tensor) -> Tensor:
    """Photo -> light: the inverse of the S-shaped tone curve 3x^2 - 2x^3, then of gamma."""
    return (0.5 - torch.sin(torch.asin(1 - 2 * photo) / 3)).clamp_(0, 1).pow(_GAMMA)


def _toned(light: Tensor) -> Tensor:
    tones = light.clamp(0, 1).add_(1e-8).pow(1 / _GAMMA)
    return (3 - 2 * tones).mul_(tones).mul_(tones).clamp_(0, 1)
