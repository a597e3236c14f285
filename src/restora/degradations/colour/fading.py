"""Faded prints: the dyes of old colour paper are partly lost, and the paper has yellowed."""

import torch
from torch import Tensor

from restora.degradations.base import Degradation, Params, Shape
from restora.degradations.parameters import Range, as_range, require_colour
from restora.keyed import KeyedGenerator
from restora.registry import register

_BLACK = 0.1


@register("degradation", "fading")
class Fading(Degradation):
    """Every dye keeps a share of its density, and the paper takes on a `stain`.

    The density of a print is -log10 of its reflectance (Beer and Lambert), so losing the share f of a dye
    turns a reflectance p into p^(1-f): whites stay, shadows lift. Black reflects `_BLACK` of white on the
    scale of the photo (paper reaches a density of 2.2), and the scan of the fresh print maps that to zero.
    Cyan dye, which the red channel shows, fades most; magenta and yellow lose between a third and the whole
    of cyan's loss, hence the reddish cast of old prints. `fade` is the share that cyan loses, within [0, 1);
    `stain` is the share that the yellowed paper removes from blue; it removes half of it from green. Numbers
    or ranges drawn uniformly per sample.
    """

    needs_colour = True

    def __init__(self, *, fade: Range, stain: Range = (0.0, 0.2)) -> None:
        self.fade = as_range("fade", fade, least=0, most=0.99)
        self.stain = as_range("stain", stain, least=0, most=1)

    def sample(self, shape: Shape, generator: KeyedGenerator) -> Params:
        require_colour("fading", shape)
        fade, stain = generator.uniform((), *self.fade), generator.uniform((), *self.stain)
        others = generator.uniform((2,), 1 / 3, 1.0) * fade[:, None]
        return {
            "exponent": 1 - torch.cat((fade[:, None], others), 1),
            "paper": 1 - torch.stack((torch.zeros_like(stain), stain / 2, stain), 1),
        }

    def apply(self, clean: Tensor, params: Params) -> Tensor:
        exponent, paper = (params[name][..., None, None] for name in ("exponent", "paper"))
        reflected = clean.clamp(0, 1).mul_(1 - _BLACK).add_(_BLACK)
        return reflected.pow_(exponent).sub_(_BLACK).div_(1 - _BLACK).mul_(paper)
