"""The interface of every degradation, and the types that pass between its two halves.

A degradation is split in two: `sample` draws per-sample parameters from keyed random numbers, `apply` is a
pure function of the clean photos and those parameters. Replaying is calling `apply` again; nothing is kept
from the last call. Large random fields are not parameters: `sample` draws a key for them
(`generator.next_keys()`) and `apply` expands it.

Legend: B samples, C channels, H height, W width, s scale, K condition channels.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from restora.image import check_layout, full_precision
from restora.keyed import KeyedGenerator

Centre: TypeAlias = Literal["mean", "median", "mode"]
SYMMETRIC: frozenset[Centre] = frozenset({"mean", "median", "mode"})
Shape: TypeAlias = tuple[int, int, int, int]
LARGEST = 100.0
"""The largest magnitude of a degraded value; strong Poisson noise comes to some tens."""
Params: TypeAlias = Mapping[str, Any]
"""Tensors whose first axis is B; for a composition, the params of its stages by name."""


class Degraded(NamedTuple):
    """`image` float32 (B,C,H/s,W/s); `condition` float32 (B,K,H/s,W/s) or None."""

    image: Tensor
    condition: Tensor | None


class Severity(NamedTuple):
    """The severity parameter: its name (sigma, quality, width, scale) and the range it is drawn from."""

    name: str
    low: float
    high: float


class Degradation(ABC):
    """Turns clean photos, float32 (B,C,H,W) in [0,1], into degraded ones on the same device."""

    scale: int = 1
    """H and W of the output are those of the input divided by this."""
    out_channels: int | None = None
    """Channels of the output; None is as many as those of the input."""
    undamaged: tuple[float, ...] = ()
    """One number per condition channel: its value where a photo is unchanged (0 for a noise-level map, 1 for
    a mask). Compositions fill it in for the samples that a stage did not touch.
    """

    fill: float | None = None
    """The value that replaces lost pixels; None where none are lost or they keep some content."""

    centres: frozenset[Centre] = frozenset()
    """Which centres of a degraded pixel's distribution, given the clean photo, equal the clean pixel. With
    another degraded version as target, a network learns the mean under a squared error, the median under an
    absolute one, the mode under the power 0."""
    independent: bool = False
    """Whether degraded pixels are independent of each other given the clean photo."""
    needs_colour: bool = False
    """Whether it cannot degrade grey photos, which its `sample` refuses."""
    gaussian: bool = False
    """Whether this is white Gaussian noise with its level as the condition."""

    @property
    def parts(self) -> tuple["Degradation", ...]:
        """The degradations that this one is made of; none except for compositions."""
        return ()

    @property
    def severity(self) -> Severity | None:
        """The one number that measures the severity; None if there is none, or if it takes several."""
        return None

    @property
    def severities(self) -> dict[str, Severity]:
        """The numbers that measure the severity, by name, including those of all parts."""
        own = self.severity
        return {} if own is None else {own.name: own}

    @property
    def condition_channels(self) -> int:
        """K of the condition that `condition` gives; 0 when there is none."""
        return len(self.undamaged)

    @abstractmethod
    def sample(self, shape: Shape, generator: KeyedGenerator) -> Params:
        """Per-sample parameters for clean photos of this shape.

        Tensors whose first axis is B, on the generator's device.
        """

    @abstractmethod
    def apply(self, clean: Tensor, params: Params) -> Tensor:
        """The degraded photos, (B,C,H/s,W/s). `params` fixes all random numbers."""

    def condition(self, clean: Tensor, params: Params) -> Tensor | None:
        """A map that a network may be conditioned on, (B,K,H/s,W/s), or None.

        Reads the shape of `clean` and never its pixels: a condition must not reveal what was lost.
        """
        return None

    def __call__(self, clean: Tensor, generator: KeyedGenerator) -> Degraded:
        check_layout(clean)
        if clean.dtype is not torch.float32:
            raise ValueError(
                f"a degradation takes float32 photos, got {clean.dtype}: give float32 photos, photos.float()"
            )
        batch, channels, height, width = clean.shape
        _check_generator(generator, batch)
        if height % self.scale or width % self.scale:
            raise ValueError(
                f"{height}x{width} is not a multiple of the scale {self.scale}: crop the photos first"
            )
        with full_precision(clean.device):
            params = self.sample((batch, channels, height, width), generator)
            return Degraded(self.degrade(clean, params), self.condition(clean, params))

    def degrade(self, clean: Tensor, params: Params) -> Tensor:
        """`apply`; raises ValueError for a result that is not (B,C',H/s,W/s) of the same type of numbers."""
        image: Any = self.apply(clean, params)
        batch, channels, height, width = clean.shape
        expected = (batch, channels, height // self.scale, width // self.scale)
        fits = False
        if isinstance(image, Tensor) and image.ndim == 4:  # fewer channels are a degradation too
            fits = (batch, *expected[2:]) == (len(image), *image.shape[2:])
        if fits and image.dtype == clean.dtype:
            return image
        got = "None" if image is None else f"a {type(image).__name__}"
        fix = "apply returns the degraded photos"
        if isinstance(image, Tensor):
            got, fix = f"{image.dtype} of shape {tuple(image.shape)}", f"convert it, .to({clean.dtype})"
            if not fits:
                fix = "keep the size, or set scale to the clean side divided by the degraded one"
        raise ValueError(
            f"the degradation {type(self).__name__} returned {got} for photos of shape {tuple(clean.shape)}, "
            f"expected {clean.dtype} of shape {expected}: {fix}"
        )


def _check_generator(generator: Any, batch: int) -> None:
    """Raises ValueError for anything but keyed random numbers for `batch` photos."""
    how = (
        "use KeyedGenerator(keys) of restora.keyed with int64 keys (B,), one for each photo, such as "
        "torch.tensor([sample_key(seed, epoch, index) for index in indices])"
    )
    if not isinstance(generator, KeyedGenerator):
        raise ValueError(f"the generator of a degradation is keyed, got {type(generator).__name__}: {how}")
    if generator.batch != batch:
        raise ValueError(f"the generator has {generator.batch} keys for {batch} photos: {how}")


def check_values(degradation: Degradation, image: Tensor) -> None:
    """Raises ValueError for degraded photos that are not finite or not on the [0,1] scale.

    It reads all pixels, so on a GPU it waits for them.
    """
    name, largest = type(degradation).__name__, float(image.abs().max())
    if not largest < float("inf"):
        raise ValueError(f"the degradation {name} returned values that are not finite (nan or inf)")
    if largest > LARGEST:
        raise ValueError(
            f"the degradation {name} returned values up to {largest:.0f}, expected the scale [0,1]: "
            "divide by 255"
        )
