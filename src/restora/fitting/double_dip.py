"""Dehazing of one photo: two networks with random weights give its scene and its transmission.

After Y. Gandelsman, A. Shocher, M. Irani, "Double-DIP: Unsupervised Image Decomposition via Coupled
Deep-Image-Priors", CVPR 2019, section 5: `y = t x + (1 - t) A`, x the scene, t its transmission and A the
light of the haze, all three fitted at once. A starts from the dark channel prior (K. He, J. Sun, X. Tang,
CVPR 2009) and stays near it. The result is `(y - (1 - t) A) / t`, so that detail that the networks do not fit
is not lost.

Note: `t = 1` explains any photo. To exclude it, the dark channel of x is a term of the loss, because a scene
has something dark or colourful everywhere; the authors use only the estimate of A. Skies and white walls have
nothing dark or colourful, and come out too dark.

Legend: C channels, H height, W width.
"""

from collections.abc import Iterator
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from restora.fitting.base import Fit, Problem, Step, check_above_zero, check_at_least, seeded
from restora.fitting.dip import check_size
from restora.networks.dip_skip import DipSkip
from restora.operators.pointwise import Identity
from restora.registry import register

_CODE = 0.1
"""The code is uniform from 0 to this."""


@register("method", "double_dip")
class DoubleDip(Fit):
    """`steps` of Adam at `learning_rate` on both networks, of `channels` in `scales` levels.

    `dark` is the weight of the scene's dark channel over windows of `window` pixels, `smooth` that of fine
    detail in the transmission, `anchor` that of the distance of A from its initial value. Transmissions are
    clamped to `least`. The result uses moving averages of t and A, in which each step has the weight
    `1 - average`.
    """

    name: ClassVar[str] = "double_dip"
    tasks: ClassVar[tuple[str, ...]] = ("dehaze",)

    def __init__(
        self,
        *,
        steps: int = 500,
        learning_rate: float = 3e-3,
        channels: int = 32,
        scales: int = 4,
        code_channels: int = 8,
        dark: float = 0.02,
        smooth: float = 0.05,
        anchor: float = 1.0,
        window: int = 15,
        least: float = 0.1,
        average: float = 0.95,
    ) -> None:
        check_at_least(
            self.name, 1, steps=steps, channels=channels, code_channels=code_channels, scales=scales
        )
        check_at_least(self.name, 0, dark=dark, smooth=smooth, anchor=anchor)
        check_above_zero(self.name, learning_rate=learning_rate)
        if window < 1 or window % 2 == 0:
            raise ValueError(f"double_dip: window must be an odd number of pixels, got {window}")
        if not 0 < least < 1 or not 0 <= average < 1:
            raise ValueError(
                "double_dip: least must be in (0, 1) and average in [0, 1); "
                f"got least={least:g} average={average:g}"
            )
        self.steps, self.learning_rate = steps, learning_rate
        self.channels, self.scales, self.code_channels = channels, scales, code_channels
        self.dark, self.smooth, self.anchor = dark, smooth, anchor
        self.window, self.least, self.average = window, least, average

    def __call__(self, problem: Problem, *, seed: int, device: torch.device) -> Iterator[Step]:
        hazy = self._checked(problem).to(device)
        scene, transmission, codes = self._start(hazy, seed)
        begun = airlight(hazy, self.window)  # (1,C,1,1)
        light = torch.logit(begun.clamp(0.02, 0.98)).requires_grad_()
        learnt = [*scene.parameters(), *transmission.parameters(), light]
        optimiser = torch.optim.Adam(learnt, lr=self.learning_rate)
        mean_t, mean_light = torch.zeros_like(hazy[:, :1]), torch.zeros_like(begun)
        for number in range(1, self.steps + 1):
            x, t, a = scene(codes[0]), transmission(codes[1]), light.sigmoid()
            loss = F.mse_loss(t * x + (1 - t) * a, hazy)
            loss = loss + self.dark * dark_channel(x, self.window).mean()
            loss = (
                loss + self.smooth * (t - F.avg_pool2d(t, 5, 1, 2, count_include_pad=False)).square().mean()
            )
            loss = loss + self.anchor * (a - begun).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            mean_t = self.average * mean_t + (1 - self.average) * t.detach()
            mean_light = self.average * mean_light + (1 - self.average) * a.detach()
            whole = 1 - self.average**number  # bias correction, as in Adam
            seen = (mean_t / whole).clamp(self.least, 1)
            picture = (hazy - (1 - seen) * mean_light / whole) / seen
            yield Step(number, self.steps, picture, loss.item(), t.detach())

    def _checked(self, problem: Problem) -> Tensor:
        if not isinstance(problem.operator, Identity):
            raise ValueError(
                "double_dip removes haze, but this photo was degraded by "
                f"{type(problem.operator).__name__}: use method dip or pnp_hqs"
            )
        if (channels := problem.degraded.shape[1]) != 3:
            raise ValueError(f"double_dip needs the colour of the haze: expected 3 channels, got {channels}")
        check_size("double_dip", problem.size, self.scales)
        return problem.degraded

    def _start(self, hazy: Tensor, seed: int) -> tuple[DipSkip, DipSkip, Tensor]:
        """Both networks in training mode, and their codes (2,1,K,H,W)."""
        device = hazy.device
        with seeded(seed):
            made = [
                DipSkip(
                    in_channels=self.code_channels,
                    out_channels=channels,
                    channels=self.channels,
                    scales=self.scales,
                    skip_channels=skips,
                )
                for channels, skips in ((hazy.shape[1], 4), (1, 0))  # the transmission is smooth
            ]
            codes = _CODE * torch.rand(2, 1, self.code_channels, *hazy.shape[-2:])
        scene, transmission = (network.to(device).train() for network in made)
        return scene, transmission, codes.to(device)


def dark_channel(x: Tensor, window: int) -> Tensor:
    """The smallest value of all channels in a window around each pixel: (1,C,H,W) -> (1,1,H,W)."""
    return -F.max_pool2d(-x.amin(1, keepdim=True), window, 1, window // 2)


def airlight(hazy: Tensor, window: int) -> Tensor:
    """The mean colour (1,C,1,1) of the thousandth of the pixels whose dark channel is the brightest."""
    dark = dark_channel(hazy, window).flatten()
    brightest = dark.topk(max(dark.numel() // 1000, 1)).indices
    return hazy.flatten(2)[..., brightest].mean(-1)[..., None, None].clamp(0, 1)
