"""Film grain: noise of the size of clumped silver, strongest in the middle tones."""

from torch import Tensor

from restora.degradations.base import SYMMETRIC, Degradation, Params, Shape
from restora.degradations.blur.filtering import filter_separably
from restora.degradations.parameters import Range, as_level, as_range, per_sample
from restora.keyed import KeyedGenerator
from restora.registry import register

_RADIUS = 4


@register("degradation", "film_grain")
class FilmGrain(Degradation):
    """`y = x + a(x) g` with grain g, the same in all channels, strongest in mid-grey.

    g is Gaussian noise of unit variance with a Gaussian spectrum of width `size`, and `a(x) = strength /
    255 * 2 sqrt(x (1 - x))`.

    The number of developed grains in a small area is binomial, hence the root (Selwyn, "A theory of
    graininess", 1935). `strength` is the standard deviation in mid-grey on the 8-bit scale; `size` is the
    standard deviation of a grain in pixels, at most 1.3. Numbers or ranges drawn uniformly per sample. Not
    clipped.
    """

    centres = SYMMETRIC

    def __init__(self, *, strength: Range, size: Range = (0.4, 1.0)) -> None:
        self.strength = as_level("strength", strength)
        self.size = as_range("size", size, least=0.05, most=1.3)

    def sample(self, shape: Shape, generator: KeyedGenerator) -> Params:
        return {
            "strength": generator.uniform((), *self.strength) / 255,
            "size": generator.uniform((), *self.size),
            "key": generator.next_keys(),
        }

    def apply(self, clean: Tensor, params: Params) -> Tensor:
        from kornia.filters import get_gaussian_kernel1d

        height, width = clean.shape[-2:]
        white = KeyedGenerator(params["key"]).normal((1, height + 2 * _RADIUS, width + 2 * _RADIUS))
        kernel = get_gaussian_kernel1d(2 * _RADIUS + 1, params["size"][:, None])
        # of unit energy, so that the variance stays one
        kernel = kernel / kernel.square().sum(1, keepdim=True).sqrt()
        grain = filter_separably(white, kernel)
        inside = clean.clamp(0, 1)
        amplitude = (inside * (1 - inside)).sqrt_().mul_(2 * per_sample(params["strength"]))
        return amplitude.mul_(grain).add_(clean)
