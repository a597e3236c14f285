"""Additive white Gaussian noise, not clipped (the denoising papers' convention)."""

from torch import Tensor

from restora.degradations.base import Degradation, Params, Shape
from restora.degradations.keyed import KeyedGenerator


class GaussianNoise(Degradation):
    """`y = x + n`, `n ~ N(0, (sigma/255)^2)` per pixel and channel.

    `sigma` is on the 8-bit scale: one number, or a range (low, high) drawn uniformly per sample. The condition is the
    noise-level map of FFDNet (Zhang, Zuo and Zhang, TIP 2018): sigma/255 at every pixel.
    """

    condition_channels = 1

    def __init__(self, *, sigma: float | tuple[float, float]) -> None:
        low, high = (sigma, sigma) if isinstance(sigma, int | float) else tuple(sigma)
        if not 0 <= low <= high:
            raise ValueError(f"sigma is a number >= 0 or a range [low, high] on the 8-bit scale, got {sigma}")
        self.low, self.high = float(low), float(high)

    def sample(self, shape: Shape, generator: KeyedGenerator) -> Params:  # noqa: ARG002
        return {"sigma": generator.uniform(low=self.low, high=self.high) / 255, "key": generator.next_keys()}

    def apply(self, clean: Tensor, params: Params) -> Tensor:
        noise = KeyedGenerator(params["key"]).normal(clean.shape[1:])
        return noise.mul_(params["sigma"].view(-1, 1, 1, 1)).add_(clean)

    def condition(self, clean: Tensor, params: Params) -> Tensor:
        batch, _, height, width = clean.shape
        return params["sigma"].view(-1, 1, 1, 1).expand(batch, 1, height, width)
