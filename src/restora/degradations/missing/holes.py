"""All pixels that a stage touches are lost: scratches, letters and tears as masks for inpainting."""

from torch import Tensor

from restora.degradations.base import Degradation, Params, Shape
from restora.degradations.missing.masking import Masking
from restora.degradations.parameters import as_number
from restora.keyed import KeyedGenerator
from restora.registry import register


@register("degradation", "holes")
class Holes(Masking):
    """The pixels that `stage` touches become `fill`, as when somebody paints over what is to be replaced.

    The stage's condition is the mask, 1 = known. A half-transparent letter would keep some of the photo under
    it, but a mask drawn by hand does not mark how much, so nothing of it is left here either. Raises
    ValueError for a stage whose condition is not a mask.
    """

    def __init__(self, *, stage: Degradation, fill: float = 0.0) -> None:
        if stage.undamaged != (1.0,) or stage.scale != 1:
            raise ValueError(
                f"{type(stage).__name__} gives no mask of its own size: scratches, text_overlay, "
                "brush_strokes, random_rectangles and mixtures of them do"
            )
        self.stage, self.fill = stage, as_number("fill", fill, least=0, most=1)

    @property
    def parts(self) -> tuple[Degradation, ...]:
        return (self.stage,)

    def sample(self, shape: Shape, generator: KeyedGenerator) -> Params:
        return {"stage": self.stage.sample(shape, generator)}

    def apply(self, clean: Tensor, params: Params) -> Tensor:
        return clean.where(self.condition(clean, params) > 0, self.fill)

    def condition(self, clean: Tensor, params: Params) -> Tensor:
        mask = self.stage.condition(clean, params["stage"])
        assert mask is not None
        return mask
