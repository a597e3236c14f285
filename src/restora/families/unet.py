"""U-Nets: an encoder-decoder, conditioned or not, supervised at several scales.

What differs from the base recipe is the objective that its experiments choose: side outputs of the decoder
compared at their own size (`objective=multi_scale`), or missing pixels weighted by a mask
(`objective=masked`).
"""

from restora.families.base import Family
from restora.registry import register


@register("family", "unet")
class UNetFamily(Family):
    """Recipe of U-Nets (Ronneberger, Fischer, Brox, MICCAI 2015), as restoration uses them."""

    name = "unet"
