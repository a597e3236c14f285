"""A fit restores one photo by steps: a network fitted to it, or a denoiser used as a prior.

Enters: a `Problem`, one degraded photo with the operator that made it. Leaves: `Step`s, the last of which has
the restored photo. A fit is a function of (problem, seed): the global random state is neither read nor
changed.

Legend: C channels, H W of the photo, h w of the observation, s scale.
"""

import copy
import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from restora.image import check_photos, checked_level
from restora.operators.base import Operator
from restora.operators.pointwise import Identity, Mask


@dataclass(frozen=True)
class Problem:
    """`degraded` (1,C,h,w) on the [0,1] scale, kept as float32, with 0 at the lost pixels of a mask.

    `sigma` is the standard deviation of its noise on the 8-bit scale, None if unknown. Raises ValueError for
    other photos and levels.
    """

    degraded: Tensor
    operator: Operator = field(default_factory=Identity)
    sigma: float | None = None

    def __post_init__(self) -> None:
        check_photos(self.degraded)
        if len(self.degraded) != 1:
            raise ValueError(
                f"a method is fitted to one photo, (1,C,H,W), got {tuple(self.degraded.shape)}: "
                "give photo[:1]"
            )
        if not isinstance(self.operator, Operator):
            raise ValueError(
                f"the operator is a part of restora.operators, such as Identity(), got {self.operator!r}"
            )
        checked_level(self.sigma)
        self.operator.check(self.degraded)
        degraded = self.degraded.detach().float()
        if isinstance(self.operator, Mask):
            degraded = self.operator.A(degraded)
        object.__setattr__(self, "degraded", degraded)

    @property
    def size(self) -> tuple[int, int]:
        """(H,W) of the restored photo."""
        height, width = self.degraded.shape[-2:]
        return height * self.operator.scale, width * self.operator.scale


@dataclass(frozen=True)
class Step:
    """After step `number` (from 1) of `of`: the best picture so far (1,C,H,W), not clamped, and the loss.

    `output` is watched by early stopping, if it differs from `picture`: the network's output before
    averaging. Note: where the whole photo costs more than a step, `picture` may be some steps old, except
    after the last step.
    """

    number: int
    of: int
    picture: Tensor
    loss: float
    output: Tensor | None = None


class Fit(ABC):
    """A method with its settings; plain values, so that it can be sent to other processes."""

    name: ClassVar[str]
    tasks: ClassVar[tuple[str, ...]]
    """The tasks that it solves; a mask is `inpaint`, a scale `super_resolution`, a kernel `deblur`."""
    level_tasks: ClassVar[tuple[str, ...]] = ()
    """Those of its tasks in which it uses the noise level."""
    usual_scale: ClassVar[int] = 1
    """The default factor of enlargement."""

    @abstractmethod
    def __call__(self, problem: Problem, *, seed: int, device: torch.device) -> Iterator[Step]:
        """The steps. Raises ValueError, with the first, for a problem that the method cannot solve."""

    def prepare(self, device: torch.device) -> None:  # noqa: B027
        """Loads the method's models, so that a missing one is reported before the first photo."""

    @property
    def stops_early(self) -> bool:
        """Whether it stops where the running variance of its outputs is least."""
        return False


def check_at_least(method: str, least: float, **settings: float | None) -> None:
    """Raises ValueError for the first setting that is not finite or below `least`; None is not set."""
    for key, value in settings.items():
        if value is not None and not least <= value < math.inf:
            raise ValueError(f"{method}: {key} must be {least:g} or more, got {value:g}")


def check_above_zero(method: str, **settings: float | None) -> None:
    """Raises ValueError for the first setting that is not finite or not above 0; None is not set."""
    for key, value in settings.items():
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{method}: {key} must be above 0, got {value:g}")


_seeding = threading.Lock()
"""Held while torch's global generator is that of one fit."""


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Weights initialised inside, on the CPU, depend on the seed alone; global generators stay as they were.

    Fits of several threads initialise their weights one after the other.
    """
    with _seeding, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def moved(operator: Operator, device: torch.device) -> Operator:
    """The operator with its tensors on the device."""
    made = copy.copy(operator)
    for key, value in vars(operator).items():
        if isinstance(value, Tensor):
            setattr(made, key, value.to(device))
    return made
