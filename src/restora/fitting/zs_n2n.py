"""Zero-Shot Noise2Noise: a small network learns from two half-size views of the noisy photo itself.

Y. Mansour, R. Heckel, CVPR 2023. Each 2x2 cell gives the mean of one diagonal to the first view and that of
the other diagonal to the second: the same photo twice, with independent noise if the noise of the pixels is
independent. The network predicts the noise of one view from it alone; the other view is the target.

Note: noise that is correlated between neighbouring pixels (JPEG, demosaicked or reduced photos) is kept,
because it is in both views.

Legend: C channels, H height, W width.
"""

from collections.abc import Iterator
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from restora.fitting.base import Fit, Problem, Step, check_above_zero, check_at_least, seeded
from restora.networks.zs_n2n import ZsN2N
from restora.operators.pointwise import Identity
from restora.registry import register
from restora.vocabulary import has_bfloat16

_SHOWN = 50
"""Steps between two restorations of the whole photo."""


@register("method", "zs_n2n")
class ZeroShotNoise2Noise(Fit):
    """Each step fits a crop of `crop` pixels a side; 0 is the whole photo, as the authors do it.

    The learning rate is halved every `halved_every` steps (authors: 1e-3, 1000, 2000 steps), or, if that is
    0, decays to zero along a cosine. `bf16` null uses bfloat16 where the processor multiplies in it.
    """

    name: ClassVar[str] = "zs_n2n"
    tasks: ClassVar[tuple[str, ...]] = ("denoise",)

    def __init__(
        self,
        *,
        steps: int = 1000,
        learning_rate: float = 3e-3,
        halved_every: int = 0,
        crop: int = 128,
        channels: int = 48,
        bf16: bool | None = None,
    ) -> None:
        check_at_least(self.name, 1, steps=steps, channels=channels)
        check_at_least(self.name, 0, halved_every=halved_every)
        check_above_zero(self.name, learning_rate=learning_rate)
        if crop < 4 and crop != 0:
            raise ValueError(f"zs_n2n: crop must be 4 pixels or more, or 0 for the whole photo, got {crop}")
        self.steps, self.learning_rate, self.halved_every = steps, learning_rate, halved_every
        self.crop, self.channels, self.bf16 = crop, channels, bf16

    def __call__(self, problem: Problem, *, seed: int, device: torch.device) -> Iterator[Step]:
        if not isinstance(problem.operator, Identity):
            raise ValueError(
                f"zs_n2n removes noise, but this photo was degraded by {type(problem.operator).__name__}: "
                "use method dip or pnp_hqs"
            )
        noisy = problem.degraded.to(device)
        if min(noisy.shape[-2:]) < 4:
            raise ValueError(f"zs_n2n needs photos of 4x4 pixels or more, got {tuple(noisy.shape[-2:])}")
        with seeded(seed):
            network = ZsN2N(in_channels=noisy.shape[1], channels=self.channels)
        network = network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimiser = torch.optim.Adam(network.parameters(), lr=self.learning_rate)
        if self.halved_every:
            schedule: torch.optim.lr_scheduler.LRScheduler = torch.optim.lr_scheduler.StepLR(
                optimiser, self.halved_every, 0.5
            )
        else:
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.steps)
        generator = torch.Generator().manual_seed(seed)
        picture = noisy
        bf16 = has_bfloat16(device.type) if self.bf16 is None else self.bf16
        for number in range(1, self.steps + 1):
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
                loss = self._loss(network, self._cropped(noisy, generator))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            if number % _SHOWN == 0 or number in (1, self.steps):
                picture = _whole(network, noisy)
            yield Step(number, self.steps, picture, loss.item())

    def _cropped(self, noisy: Tensor, generator: torch.Generator) -> Tensor:
        """A random crop of even sides, so that all 2x2 cells are whole; at even and at odd offsets."""
        size = [side - side % 2 for side in noisy.shape[-2:]]
        if self.crop:
            size = [min(side, self.crop - self.crop % 2) for side in size]
        places = (
            int(torch.randint(whole - side + 1, (), generator=generator))
            for whole, side in zip(noisy.shape[-2:], size, strict=True)
        )
        top, left = places
        crop = noisy[..., top : top + size[0], left : left + size[1]]
        return crop.contiguous(memory_format=torch.channels_last)

    def _loss(self, network: ZsN2N, noisy: Tensor) -> Tensor:
        """Residual and consistency loss of the paper, eq. 4 to 6."""
        views = torch.cat(halves(noisy))
        restored = views - network.noise(views).float()
        first, second = restored.chunk(2)
        residual = F.mse_loss(torch.cat((second, first)), views)
        consistent = torch.cat(halves(noisy - network.noise(noisy).float()))
        return residual + F.mse_loss(restored, consistent)


@torch.no_grad()
def _whole(network: ZsN2N, noisy: Tensor, pixels: int = 1 << 20) -> Tensor:
    """(1,C,H,W) restored in strips of about `pixels`, which bounds the memory.

    Strips overlap by two pixels, the radius of the receptive field, so that the result is the same.
    """
    height, width = noisy.shape[-2:]
    rows = max(pixels // width, 1)
    strips = []
    for top in range(0, height, rows):
        above = min(top, 2)
        strip = noisy[..., top - above : top + rows + 2, :].contiguous(memory_format=torch.channels_last)
        strips.append(network(strip)[..., above : above + min(rows, height - top), :])
    return torch.cat(strips, dim=-2)


def halves(x: Tensor) -> tuple[Tensor, Tensor]:
    """(B,C,H,W) of even sides -> the means of the two diagonals of each 2x2 cell, (B,C,H/2,W/2) each."""
    a, b, c, d = x[..., ::2, ::2], x[..., ::2, 1::2], x[..., 1::2, ::2], x[..., 1::2, 1::2]
    return (b + c) / 2, (a + d) / 2
