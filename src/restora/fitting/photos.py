"""A method fitted to one photo, as a restorer of photo files: depth, alpha and metadata are kept."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from restora.artifact.photo_pixels import restored_by
from restora.fitting.base import Fit, Problem
from restora.fitting.running import Progress, run
from restora.image import estimated_sigma
from restora.operators.observed import operator_of
from restora.operators.pointwise import Identity
from restora.photos.files import Photo

PREFIX = "method:"
"""Before the name of a method, where the source of a model may stand too."""


@dataclass(frozen=True)
class PhotoFit:
    """`sigma` (8-bit scale) is the noise of the photos, None where nobody knows.

    `scale` how many times they are to be enlarged; `kernel` (k,k) the blur to take away; `max_time` what
    a photo may take, in seconds.
    """

    fit: Fit
    seed: int = 0
    device: str = "cpu"
    max_time: float | None = None
    sigma: float | None = None
    scale: int = 1
    kernel: Tensor | None = None
    resolution: ClassVar[int] = 1000
    """Parts of a photo that progress is counted in."""

    def __call__(
        self,
        photo: Photo,
        *,
        lost: Photo | None = None,
        progress: Callable[[int, int], None] | None = None,
        strength: float = 1.0,
    ) -> Photo:
        """The restored photo; `lost` is white where it has to be filled in. `progress` is called with the
        steps, or, with a time limit, the share of time that has passed, and their whole."""

        def show(at: Progress) -> None:
            if progress is not None:
                done = at.seconds / max(at.seconds + at.left, 1e-9)
                progress(round(self.resolution * done), self.resolution)

        def answer(x: Tensor, known: Tensor | None) -> Tensor:
            operator = operator_of(mask=known, kernel=self.kernel, scale=self.scale)
            x = operator.A(x) if known is not None else x
            sigma = self.sigma
            if sigma is None and isinstance(operator, Identity):
                sigma = estimated_sigma(x[0].permute(1, 2, 0).double().numpy())
            problem = Problem(x, operator, sigma)
            device = torch.device(self.device)
            return run(
                self.fit, problem, seed=self.seed, device=device, max_time=self.max_time, on_step=show
            ).picture

        return restored_by(answer, photo, scale=self.scale, lost=lost, strength=strength)
