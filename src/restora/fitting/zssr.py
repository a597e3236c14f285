"""ZSSR: a small network learns to enlarge from reduced copies of the photo itself.

A. Shocher, N. Cohen, M. Irani, "'Zero-Shot' Super-Resolution using Deep Internal Learning", CVPR 2018. Sons
are crops of the photo, turned, mirrored and reduced by the operator of the problem; the network restores the
crop from its son, which is enlarged by bicubic interpolation first. The result is the median over eight turns
and mirrorings, each back-projected onto the observation.

Legend: C channels, H height, W width.
"""

from collections import deque
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from restora.fitting.base import Fit, Problem, Step, check_above_zero, check_at_least, moved, seeded
from restora.image import turned, turned_back
from restora.networks.dncnn import DnCNN
from restora.operators.base import Operator
from restora.operators.blur import BlurSubsample
from restora.operators.resizing import Bicubic
from restora.registry import register
from restora.vocabulary import has_bfloat16

_SHOWN = 100
"""Steps between two restorations of the whole photo."""
_SLOPE_OVER, _SLOPE_EVERY = 256, 60
"""The authors' test of whether the loss still falls: over so many steps, every so many."""
_LAST_RATE = 9e-6


@register("method", "zssr")
class ZeroShotSuperResolution(Fit):
    """Eight convolutions of `channels`, L1, Adam.

    The learning rate is divided by ten when the loss stops falling, and below 9e-6 the fit ends. `noise`
    (8-bit scale) is added to the sons, for noisy photos. `bf16` null uses bfloat16 where the processor
    multiplies in it.
    """

    name: ClassVar[str] = "zssr"
    tasks: ClassVar[tuple[str, ...]] = ("super_resolution",)
    usual_scale: ClassVar[int] = 2

    def __init__(
        self,
        *,
        steps: int = 3000,
        learning_rate: float = 1e-3,
        crop: int = 128,
        channels: int = 64,
        depth: int = 8,
        noise: float = 0.0,
        projections: int = 10,
        bf16: bool | None = None,
    ) -> None:
        check_at_least(self.name, 1, steps=steps, channels=channels)
        check_at_least(self.name, 3, depth=depth)
        check_at_least(self.name, 8, crop=crop)
        check_at_least(self.name, 0, noise=noise, projections=projections)
        check_above_zero(self.name, learning_rate=learning_rate)
        self.steps, self.learning_rate, self.crop = steps, learning_rate, crop
        self.channels, self.depth, self.noise = channels, depth, noise
        self.projections, self.bf16 = projections, bf16

    def __call__(self, problem: Problem, *, seed: int, device: torch.device) -> Iterator[Step]:
        operator = moved(problem.operator, device)
        scale = operator.scale
        if not isinstance(operator, Bicubic | BlurSubsample) or scale < 2:
            raise ValueError(
                "zssr enlarges photos: give a scale of 2 or more (--scale 2), or use another method"
            )
        photo = problem.degraded.to(device)
        if min(photo.shape[-2:]) < 4 * scale:
            raise ValueError(
                f"zssr needs photos of {4 * scale} pixels or more on each side, got {tuple(photo.shape[-2:])}"
            )
        with seeded(seed):
            network = DnCNN(
                in_channels=photo.shape[1], depth=self.depth, channels=self.channels, batch_norm=False
            )
            last = network.model[-1]
            assert isinstance(last, torch.nn.Conv2d)
            torch.nn.init.normal_(last.weight, std=1e-3)  # starts as bicubic interpolation
        network = network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimiser = torch.optim.Adam(network.parameters(), lr=self.learning_rate)
        generator = torch.Generator().manual_seed(seed)
        bf16 = has_bfloat16(device.type) if self.bf16 is None else self.bf16
        losses: deque[float] = deque(maxlen=_SLOPE_OVER)
        picture = operator.start(photo)
        for number in range(1, self.steps + 1):
            father, son = self._pair(photo, operator, generator)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
                loss = F.l1_loss(network(son).float(), father)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            value = loss.item()
            losses.append(value)
            done = number == self.steps or (number % _SLOPE_EVERY == 0 and self._at_rest(losses, optimiser))
            if done or number % _SHOWN == 0:
                picture = self._whole(network, photo, operator, turns=8 if done else 1)
            yield Step(number, number if done else self.steps, picture, value)
            if done:
                return

    def _pair(self, photo: Tensor, operator: Operator, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A crop of the photo, and its son at the same size."""
        scale = operator.scale
        sides = [min(side, self.crop) // scale * scale for side in photo.shape[-2:]]
        top, left = (
            int(torch.randint(whole - side + 1, (), generator=generator))
            for whole, side in zip(photo.shape[-2:], sides, strict=True)
        )
        turn = int(torch.randint(8, (), generator=generator))
        father = turned(photo[..., top : top + sides[0], left : left + sides[1]], turn).contiguous()
        small = operator.A(father)
        if self.noise:
            grain = torch.randn(small.shape, generator=generator).to(small)
            small = small + grain * self.noise / 255
        son = operator.start(small)
        return father, son.contiguous(memory_format=torch.channels_last)

    def _at_rest(self, losses: deque[float], optimiser: torch.optim.Optimizer) -> bool:
        """Lowers the learning rate if the loss falls by less than its scatter; True below the lowest rate."""
        if len(losses) < _SLOPE_OVER:
            return False
        at = np.arange(len(losses))
        slope, offset = np.polyfit(at, losses, 1)
        scatter = float(np.std(np.asarray(losses) - slope * at - offset)) / len(losses) ** 0.5
        if -1.5 * slope * len(losses) >= scatter:
            return False
        for group in optimiser.param_groups:
            group["lr"] /= 10
        losses.clear()
        return bool(optimiser.param_groups[0]["lr"] < _LAST_RATE)

    @torch.no_grad()
    def _whole(self, network: DnCNN, photo: Tensor, operator: Operator, *, turns: int) -> Tensor:
        """(1,C,H*s,W*s): the median over turns, back-projected onto the observation."""
        start = operator.start(photo)
        answers = []
        for turn in range(turns):
            seen = turned(start, turn).contiguous(memory_format=torch.channels_last)
            answers.append(self._projected(turned_back(network(seen), turn), photo, operator))
        return self._projected(median(torch.stack(answers)), photo, operator)

    def _projected(self, x: Tensor, photo: Tensor, operator: Operator) -> Tensor:
        """Iterated back-projection (Irani and Peleg, 1991): adds the enlarged error of the reduced result."""
        for _ in range(self.projections):
            missing = photo - operator.A(x)
            x = x + _enlarged(missing, operator)
        return x


def median(answers: Tensor) -> Tensor:
    """The median over the first axis; of an even number the mean of the middle two, unlike torch's."""
    middle = answers.sort(dim=0).values
    return (middle[(len(answers) - 1) // 2] + middle[len(answers) // 2]) / 2


def _enlarged(small: Tensor, operator: Operator) -> Tensor:
    """`start` of a residual, whose values may be negative."""
    return operator.start(small + 0.5) - 0.5
