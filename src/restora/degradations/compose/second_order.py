"""Real-ESRGAN's degradation: blur, resize, noise and JPEG, twice, with ringing at the end.

Wang et al., "Real-ESRGAN: training real-world blind super-resolution with pure synthetic data", ICCVW 2021.
Their code draws one resize per batch and keeps a queue of 180 pairs to mix batches again. Here every sample
has sizes of its own on a shared canvas (`varying_resizing`), so a batch is fully mixed and does not depend on
earlier batches. The canvas beyond a sample's size repeats its edge, and gets noise and JPEG like the rest.

Legend: B samples, C channels, H height, W width, s scale.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from restora.degradations.base import Degradation, Params, Shape
from restora.degradations.blur.filtering import KernelBlur, filter_per_sample
from restora.degradations.blur.sharpening import unsharp_mask
from restora.degradations.compose.composition import choose
from restora.degradations.compose.selection import rows_of, where_drawn
from restora.degradations.compression.jpeg import jpeg
from restora.degradations.noise.poisson import poisson_from
from restora.degradations.parameters import (
    Range,
    as_level,
    as_probability,
    as_range,
    as_whole_range,
    host_knows,
    per_sample,
)
from restora.degradations.sampling.varying_resizing import apply_matrices, interpolation_matrices
from restora.image import levels, round_to_8_bits
from restora.keyed import KeyedGenerator
from restora.registry import register

_BLOCK = 16


@register("degradation", "order")
class Order:
    """The settings of one of the two rounds.

    `blur` is applied with `blur_probability`. `resize` holds the relative chances of enlarging, reducing and
    keeping, `resize_range` the factors; the interpolation is area, bilinear or bicubic with equal chance.
    Noise is Gaussian with `gaussian_probability` (`sigma` on the 8-bit scale), else Poisson noise with as
    many photons at white as there are distinct 8-bit values in the photo (rounded up to a power of two),
    times `poisson_strength`; it is the same in all channels with `grey_probability`. `quality` is libjpeg's.
    """

    def __init__(
        self,
        *,
        blur: KernelBlur,
        blur_probability: float,
        resize: Sequence[float],
        resize_range: Range,
        gaussian_probability: float,
        sigma: Range,
        poisson_strength: Range,
        grey_probability: float,
        quality: Range,
    ) -> None:
        self.blur, self.blur_probability = blur, as_probability("blur_probability", blur_probability)
        if len(resize) != 3 or min(resize) < 0 or not 0 < sum(resize) < math.inf:
            raise ValueError(
                f"resize must be three chances, of enlarging, reducing and keeping; got {resize}"
            )
        self.resize = [chance / sum(resize) for chance in resize]
        self.resize_range = as_range("resize_range", resize_range, least=0.01, most=8)
        if not self.resize_range[0] <= 1 <= self.resize_range[1]:
            raise ValueError(f"resize_range must contain 1, got {resize_range}")
        self.gaussian_probability = as_probability("gaussian_probability", gaussian_probability)
        self.grey_probability = as_probability("grey_probability", grey_probability)
        self.sigma = as_level("sigma", sigma)
        self.poisson_strength = as_range("poisson_strength", poisson_strength, least=0)
        self.quality = as_whole_range("quality", quality, least=1, most=100)

    def sample(self, shape: Shape, generator: KeyedGenerator) -> Params:
        # both factors are drawn, one is used: later numbers do not depend on the direction
        direction = choose(self.resize, generator.fork("direction"))
        up = generator.uniform((), 1.0, self.resize_range[1])
        down = generator.uniform((), self.resize_range[0], 1.0)
        return {
            "blur": self.blur.sample(shape, generator.fork("blur")),
            "blurred": generator.uniform() < self.blur_probability,
            "factor": torch.where(direction == 0, up, torch.where(direction == 1, down, 1.0)),
            "mode": generator.integers(0, 3),
            "gaussian": generator.uniform() < self.gaussian_probability,
            "sigma": generator.uniform((), *self.sigma) / 255,
            "strength": generator.uniform((), *self.poisson_strength),
            "grey": generator.uniform() < self.grey_probability,
            "quality": generator.integers(self.quality[0], self.quality[1] + 1),
            "key": generator.next_keys(),
        }


@register("degradation", "second_order")
class SecondOrder(Degradation):
    """Two rounds and a last resize to 1/s with a `ringing` filter.

    The filter comes before or after the second JPEG with equal chance.

    `sharpen` degrades the photo after unsharp masking; the target stays as it is. The result is stored in 8
    bits.
    """

    def __init__(
        self,
        *,
        scale: int,
        first: Order,
        second: Order,
        ringing: KernelBlur,
        ringing_probability: float,
        sharpen: bool = True,
    ) -> None:
        if scale < 1:
            raise ValueError(f"scale must be at least 1, got {scale}")
        self.scale, self.first, self.second = scale, first, second
        self.ringing, self.sharpen = ringing, sharpen
        self.ringing_probability = as_probability("ringing_probability", ringing_probability)

    def sample(self, shape: Shape, generator: KeyedGenerator) -> Params:
        return {
            "first": self.first.sample(shape, generator.fork("first")),
            "second": self.second.sample(shape, generator.fork("second")),
            "ringing": self.ringing.sample(shape, generator.fork("ringing")),
            "rings": generator.uniform() < self.ringing_probability,
            "mode": generator.integers(0, 3),
            "jpeg_last": generator.uniform() < 0.5,
        }

    def apply(self, clean: Tensor, params: Params) -> Tensor:
        first, second = params["first"], params["second"]
        height, width = clean.shape[-2:]
        # (B,2): full before the first resize, middle after it, reduced after the second, whole at the end
        small = (height // self.scale, width // self.scale)
        full, whole = (_sizes(first["factor"], n) for n in ((height, width), small))
        middle, reduced = _scaled(full, first["factor"]), _scaled(whole, second["factor"])

        # first round; its blur is at the photo's size for all samples
        x = unsharp_mask(clean) if self.sharpen else clean
        x = _blurred(x, first["blurred"], self.first.blur.kernels(first["blur"]))
        x = self._enlarged_apart(
            x,
            {
                # without the first blur's parameters, which are no longer needed
                "first": {name: value for name, value in first.items() if name != "blur"},
                "blurred": second["blurred"],
                "kernels": self.second.blur.kernels(second["blur"]),
                "mode": second["mode"],
                "sizes": {"full": full, "middle": middle, "reduced": reduced},
            },
        )
        # second round, on a canvas that holds the largest sample; x is (B,C,h,w) from here
        x = noisy(x, second, x.shape[-2:])
        jpeg_last = params["jpeg_last"]
        x = where_drawn(~jpeg_last, x, _jpeg, second, x)
        # every sample to (H/s,W/s): the canvas beyond its size is dropped
        x = _resized(x, reduced, whole, small, params["mode"])
        x = _blurred(x, params["rings"], self.ringing.kernels(params["ringing"])).clamp_(0, 1)
        x = where_drawn(jpeg_last, x, _jpeg, second, x)
        return round_to_8_bits(x)

    def _enlarged_apart(self, x: Tensor, params: Params) -> Tensor:
        """`_between_blur_and_noise`, on a CPU apart for samples that are enlarged and those that are not.

        The latter need half the canvas; the numbers are the same. A device would have to be waited for.
        """
        if not host_knows(x):
            return self._between_blur_and_noise(x, params, self.first.resize_range[1])
        out: Tensor | None = None
        # (B,)
        enlarged = params["first"]["factor"] > 1
        for chosen, largest in ((~enlarged, 1.0), (enlarged, self.first.resize_range[1])):
            rows = chosen.nonzero()[:, 0]
            if len(rows):
                part = self._between_blur_and_noise(x[rows], rows_of(params, rows), largest)
                # both parts end on canvases of one size
                out = part.new_empty(len(x), *part.shape[1:]) if out is None else out
                out[rows] = part
        assert out is not None, "an empty batch"
        return out

    def _between_blur_and_noise(self, x: Tensor, params: Params, largest: float) -> Tensor:
        """From the first blur to the second noise, for factors of the first resize up to `largest`."""
        first, sizes = params["first"], params["sizes"]
        photo = x.shape[-2:]
        # noise is drawn for the largest canvas, and a smaller one takes its corner: the same numbers
        field = [int(n * self.first.resize_range[1]) for n in photo]
        room = [min(most, self._room(n, largest)) for n, most in zip(photo, field, strict=True)]
        x = _resized(x, sizes["full"], sizes["middle"], room, first["mode"])
        x = _jpeg(noisy(x, first, field), first)
        x = _blurred(x, params["blurred"], params["kernels"])
        # the second resize is relative to the final size
        room = [int(n // self.scale * self.second.resize_range[1]) for n in photo]
        return _resized(x, sizes["middle"], sizes["reduced"], room, params["mode"])

    def _room(self, n: int, largest: float) -> int:
        """The side of a canvas for up to `largest` n pixels.

        It has so much repeated edge that the second blur does not reach its end, and consists of whole blocks
        of a JPEG with chroma subsampling.
        """
        return -(-(int(n * largest) + self.second.blur.radius + 1) // _BLOCK) * _BLOCK


def _sizes(like: Tensor, size: tuple[int, int]) -> Tensor:
    """Height and width of every sample, (B,2)."""
    return torch.stack([torch.full_like(like, n) for n in size], 1)


def _scaled(sizes: Tensor, factor: Tensor) -> Tensor:
    return (sizes * factor[:, None]).floor_().clamp_(min=1)


def _blurred(x: Tensor, drawn: Tensor, kernels: Tensor) -> Tensor:
    return where_drawn(drawn, x, lambda x, own: filter_per_sample(x, own["kernels"]), {"kernels": kernels}, x)


def _jpeg(x: Tensor, params: Params) -> Tensor:
    return jpeg(x, params["quality"])


def _resized(x: Tensor, sizes: Tensor, targets: Tensor, room: Sequence[int], mode: Tensor) -> Tensor:
    """Samples whose heights and widths are `sizes`, (B,2), to `targets`, on a canvas of `room`."""
    height, width = x.shape[-2:]
    # (B,room,H): the rows of a sample beyond its target repeat its last one
    rows = interpolation_matrices(room[0], height, targets[:, 0], sizes[:, 0], mode)
    if height == width and room[0] == room[1]:
        return apply_matrices(x, rows, rows)
    return apply_matrices(x, rows, interpolation_matrices(room[1], width, targets[:, 1], sizes[:, 1], mode))


def noisy(x: Tensor, params: Params, field: Sequence[int]) -> Tensor:
    """Gaussian or Poisson noise, coloured or grey, clipped to [0,1].

    One normal draw serves both kinds: the corner of a `field` (height, width) that x covers.
    """
    normal = KeyedGenerator(params["key"]).normal_corner(x.shape[1:], field)
    gaussian = normal * per_sample(params["sigma"])
    # Poisson noise only where it was drawn; elsewhere the Gaussian stays
    noise = where_drawn(~params["gaussian"], x, _shot_noise, {**params, "normal": normal}, gaussian)
    # (B,1,H,W) spreads over the channels
    noise = torch.where(per_sample(params["grey"]), noise[:, :1], noise)
    return noise.add_(x).clamp_(0, 1)


def _shot_noise(x: Tensor, params: Params) -> Tensor:
    """Poisson noise of the 8-bit photo; grey noise is that of its luma, of which one channel is used."""
    from kornia.color import rgb_to_grayscale

    luma = x if x.shape[1] == 1 else rgb_to_grayscale(x)
    pixels = levels(torch.where(per_sample(params["grey"]), luma, x))
    # photons at white: the photo's distinct values, rounded up to a power of two, as in the authors' code
    photons = per_sample(_power_of_two(_distinct(pixels)))
    # expected photons of a pixel; the difference from them is the noise, scaled back to [0,1]
    rate = pixels.mul_(photons / 255)
    return poisson_from(rate, params["normal"]).sub_(rate).mul_(per_sample(params["strength"]) / photons)


def _distinct(pixels: Tensor) -> Tensor:
    """How many of the values 0 to 255 occur in each sample: (B,C,H,W) -> (B,)."""
    seen = torch.zeros(pixels.shape[0], 256, device=pixels.device)
    return seen.scatter_(1, pixels.flatten(1).long(), 1.0).sum(1)


def _power_of_two(count: Tensor) -> Tensor:
    """The smallest power of two that is not below `count`, at most 256."""
    # the exponent is how many of 1, 2, 4 ... 128 are below the count
    below = count[:, None] > 2 ** torch.arange(8, device=count.device)
    return torch.exp2(below.sum(1).float())
