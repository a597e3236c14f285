"""Sensor noise: photon noise of the light and read noise of the electronics."""

from torch import Tensor

from restora.degradations.base import Degradation, Params, Shape
from restora.degradations.noise.poisson import poisson
from restora.degradations.parameters import Range, as_range, per_sample
from restora.keyed import KeyedGenerator
from restora.registry import register


@register("degradation", "poisson_gaussian_noise")
class PoissonGaussianNoise(Degradation):
    """`y = (Poisson(x N) + r n) / N`, `n ~ N(0, 1)`.

    N is `electrons` at white, r `read_noise` in electrons rms.

    The variance is x / N + (r / N)^2 (Foi et al., "Practical Poissonian-Gaussian noise modeling and fitting
    for single-image raw-data", TIP 2008). Both are a number or a range per sample, drawn uniformly. Not
    clipped.
    """

    centres, independent = frozenset({"mean"}), True

    def __init__(self, *, electrons: Range, read_noise: Range) -> None:
        self.electrons = as_range("electrons", electrons, least=1e-3)
        self.read_noise = as_range("read_noise", read_noise, least=0)

    def sample(self, shape: Shape, generator: KeyedGenerator) -> Params:
        return {
            "electrons": generator.uniform((), *self.electrons),
            "read_noise": generator.uniform((), *self.read_noise),
            "key": generator.next_keys(),
        }

    def apply(self, clean: Tensor, params: Params) -> Tensor:
        electrons, generator = per_sample(params["electrons"]), KeyedGenerator(params["key"])
        shot = poisson((clean * electrons).clamp_(min=0), generator)
        read = generator.normal(clean.shape[1:]).mul_(per_sample(params["read_noise"]))
        return shot.add_(read).div_(electrons)
