"""Lost pixels, and the mask that marks them.

Legend: B samples, C channels, H height, W width.
"""

from torch import Tensor

from restora.degradations.base import Degradation, Params


class Masking(Degradation):
    """A photo of which some pixels are replaced by `fill`.

    `params["mask"]` is bool (B,1,H,W), True where known.

    The mask is the condition: 1 = known, 0 = lost.
    """

    undamaged = (1.0,)
    fill: float

    def apply(self, clean: Tensor, params: Params) -> Tensor:
        return clean.where(params["mask"], self.fill)

    def condition(self, clean: Tensor, params: Params) -> Tensor:
        return params["mask"].to(clean.dtype)
