"""A method fitted to one photo, as a restorer of photo files: bit depth, alpha and metadata are kept."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from restora.artifact.photo_pixels import restored_by
from restora.fitting.base import Fit, Problem
from restora.fitting.running import Progress, run
from restora.image import estimated_sigma
from restora.operators.base import Operator
from restora.operators.observed import operator_of
from restora.operators.pointwise import Identity, Mask, bayer
from restora.photos.files import Photo

PREFIX = "method:"
"""The prefix of a method's name where the source of a model is allowed too."""


@dataclass(frozen=True)
class PhotoFit:
    """`sigma` (8-bit scale) is the noise level of the photos, None if unknown.

    `scale` is the factor of enlargement; `kernel` (k,k) the blur to remove; `mosaic` the sensor's pattern,
    for photos that are grey or have one colour in each pixel; `max_time` the limit for one photo, in seconds.
    """

    fit: Fit
    seed: int = 0
    device: str = "cpu"
    max_time: float | None = None
    sigma: float | None = None
    scale: int = 1
    kernel: Tensor | None = None
    mosaic: str | None = None
    resolution: ClassVar[int] = 1000
    """Parts of a photo that progress is counted in."""

    def __call__(
        self,
        photo: Photo,
        *,
        lost: Photo | None = None,
        progress: Callable[[int, int], None] | None = None,
        strength: float = 1.0,
        say: Callable[[str], None] = lambda _: None,
        enough: Callable[[], bool] | None = None,
    ) -> Photo:
        """The restored photo; `lost` is white where it has to be filled in.

        `progress` is called with the share of the steps, or of the time limit, that is done, in parts of
        `resolution`, and with `resolution`; `say` with what ended the fit early, if anything did. Once
        `enough()` is true, the picture so far is the result.
        """

        def show(at: Progress) -> None:
            if progress is not None:
                done = at.seconds / max(at.seconds + at.left, 1e-9)
                progress(round(self.resolution * done), self.resolution)

        def answer(x: Tensor, known: Tensor | None) -> Tensor:
            operator: Operator = operator_of(mask=known, kernel=self.kernel, scale=self.scale)
            if self.mosaic is not None:
                operator, x = Mask(bayer(x.shape[-2], x.shape[-1], self.mosaic)), x.expand(-1, 3, -1, -1)
            sigma = self.sigma
            if sigma is None and isinstance(operator, Identity):
                sigma = estimated_sigma(x[0].permute(1, 2, 0).double().numpy())
            problem = Problem(x, operator, sigma)
            outcome = run(
                self.fit,
                problem,
                seed=self.seed,
                device=self.device,
                max_time=self.max_time,
                on_step=show,
                enough=enough,
            )
            if outcome.cut_short:
                early = outcome.steps < outcome.of / 2
                say(outcome.cut_short + "; so early it may be worse than the input" * early)
            return outcome.picture

        return restored_by(answer, photo, scale=self.scale, lost=lost, strength=strength)
