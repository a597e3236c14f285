"""Moire: a photographed screen, whose pixel grid is sampled by the camera's."""

import math

import torch
from torch import Tensor

from restora.degradations.base import Degradation, Params, Shape
from restora.degradations.parameters import Range, as_range, per_sample
from restora.keyed import KeyedGenerator
from restora.registry import register


@register("degradation", "moire")
class Moire(Degradation):
    """The photo multiplied by coloured fringes: the beat of the screen's grid with the sensor's.

    The screen's columns of red, green and blue stripes, each a third of a pitch aside, beat with the
    sensor's columns in fringes whose phase differs by 120 degrees from channel to channel; its rows beat in
    grey fringes. Perspective and lens bend both (a quadratic phase). Moire is the difference frequency of
    two gratings (Amidror, "The theory of the moire phenomenon", 2000).

    A fringe is `1 - a/2 (1 - cos phase)`: the gaps of the grid only remove light. `period` is that of
    the fringes in pixels, `amplitude` the depth a of the darkest fringe, `bend` the change of phase that the
    bending adds from the centre to a corner, in turns. Numbers or ranges drawn per sample.
    """

    def __init__(self, *, period: Range, amplitude: Range, bend: Range = (0.0, 4.0)) -> None:
        self.period = as_range("period", period, least=2)
        self.amplitude = as_range("amplitude", amplitude, least=0, most=1)
        self.bend = as_range("bend", bend, least=0)

    def sample(self, shape: Shape, generator: KeyedGenerator) -> Params:
        # two gratings: the columns and the rows of the screen
        return {
            "period": generator.uniform((2,), *self.period),
            "angle": generator.uniform((2,), 0, 2 * math.pi),
            "phase": generator.uniform((2,), 0, 2 * math.pi),
            "bend": generator.uniform((), *self.bend)[:, None] * generator.uniform((3,), -1, 1),
            "amplitude": generator.uniform((), *self.amplitude),
        }

    def apply(self, clean: Tensor, params: Params) -> Tensor:
        channels, height, width = clean.shape[1:]
        y = torch.linspace(-0.5, 0.5, height, device=clean.device).view(1, 1, -1, 1)
        x = torch.linspace(-0.5, 0.5, width, device=clean.device).view(1, 1, 1, -1)
        curl = [per_sample(c) for c in params["bend"].unbind(1)]
        bent = (curl[0] * (x * x) + curl[1] * (x * y) + curl[2] * (y * y)).mul_(4 * math.pi)
        stripe = torch.arange(channels, device=clean.device).view(1, -1, 1, 1) * (2 * math.pi / 3)
        amplitude = per_sample(params["amplitude"]) / 2
        out = clean
        for grating in range(2):
            angle, phase = (per_sample(params[name][:, grating]) for name in ("angle", "phase"))
            turns = 2 * math.pi / per_sample(params["period"][:, grating])
            ramp = (x * (width * turns * angle.cos()) + y * (height * turns * angle.sin()) + phase).add_(bent)
            wave = (ramp + stripe if grating == 0 else ramp).cos_()
            out = out * (1 - amplitude * (1 - wave))
        return out
