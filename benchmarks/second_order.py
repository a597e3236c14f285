"""Real-ESRGAN's degradation: restora's against the same recipe of BasicSR's functions.

    python benchmarks/second_order.py [--batch 16] [--size 128] [--scale 4] [--rounds 20] [--device cuda]
                                      [--threads N]

A batch of clean crops, --size pixels, becomes one of size / scale. Measured of restora: everything, the
random parameters included. Of BasicSR: unsharp mask, blur, resize, noise, JPEG, blur, resize, noise, JPEG,
resize and ringing with the published settings; the blur kernels are given (its loader's workers draw them)
and, in another row, drawn too. Every round has its own seed: BasicSR draws one resize per batch, so its
times differ from round to round. Each row has a process of its own, restora's with freed memory kept, as
`restora train` does; so has one of BasicSR's. Needs BasicSR (benchmarks/peers.txt).
"""

import argparse
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from degradations import photos_as_in_training
from peers import PeerMissingError, peer
from sides import Prepared, Side, in_turns
from timing import (
    Row,
    comparison,
    console,
    machine,
    not_measured,
    parser,
    ratio,
    save_rows,
)
from torch import Tensor

from restora.config import build, parts
from restora.keyed import KeyedGenerator, sample_key

OURS = "restora"
GIVEN, KEPT, DRAWN = (f"BasicSR, kernels {how}" for how in ("given", "given, memory kept", "drawn"))
WARM_UP = 2
TARGET = "5 times"
KINDS = ["iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso"]
CHANCES = [0.45, 0.25, 0.12, 0.03, 0.12, 0.03]
WINDOW = 21


@dataclass(frozen=True)
class Round:
    """The published settings of one of the two rounds."""

    blur_sigma: tuple[float, float]
    resize: tuple[float, float, float]
    resize_range: tuple[float, float]
    sigma: tuple[float, float]
    poisson: tuple[float, float]
    grey: float = 0.4
    quality: tuple[float, float] = (30, 95)


FIRST = Round((0.2, 3.0), (0.2, 0.7, 0.1), (0.15, 1.5), (1, 30), (0.05, 3.0))
SECOND = Round((0.2, 1.5), (0.3, 0.4, 0.3), (0.3, 1.2), (1, 25), (0.05, 2.5))


class BasicSRRecipe:
    """BasicSR's functions in the order of the paper (Wang et al., ICCVW 2021, fig. 2)."""

    def __init__(self, scale: int, device: str) -> None:
        self.functions = peer("basicsr.data", "degradations", "peers-bench")
        self.process = peer("basicsr.utils", "img_process_util", "peers-bench")
        self.sharpen = self.process.USMSharp().to(device)
        self.jpeg = peer("basicsr.utils", "DiffJPEG", "peers-bench")(differentiable=False).to(device)
        self.scale, self.device = scale, device

    def kernels(self, batch: int) -> tuple[Tensor, Tensor, Tensor]:
        """The kernels of the two blurs and the ringing, (B,21,21) each."""
        blurs = [[self._kernel(settings.blur_sigma) for _ in range(batch)] for settings in (FIRST, SECOND)]
        ringing = [self._sinc(1 / 3) if random.random() < 0.8 else self._nothing() for _ in range(batch)]
        made = (torch.tensor(np.stack(k), dtype=torch.float32) for k in (*blurs, ringing))
        return next(made).to(self.device), next(made).to(self.device), next(made).to(self.device)

    def degrade(self, clean: Tensor, kernels: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        first, second, ringing = kernels
        small = [n // self.scale for n in clean.shape[-2:]]
        x = self.process.filter2D(self.sharpen(clean), first)
        x = self._noisy(self._resized(x, FIRST, clean.shape[-2:]), FIRST)
        x = self._compressed(x, FIRST)
        if random.random() < 0.8:
            x = self.process.filter2D(x, second)
        x = self._noisy(self._resized(x, SECOND, small), SECOND)
        if random.random() < 0.5:
            x = self.process.filter2D(F.interpolate(x, size=small, mode=_mode()), ringing)
            x = self._compressed(x, SECOND)
        else:
            x = self._compressed(x, SECOND)
            x = self.process.filter2D(F.interpolate(x, size=small, mode=_mode()), ringing)
        return (x * 255).round().clamp(0, 255) / 255

    def _resized(self, x: Tensor, settings: Round, base: Any) -> Tensor:
        direction = random.choices(("up", "down", "keep"), settings.resize)[0]
        low, high = settings.resize_range
        factor = {"up": random.uniform(1, high), "down": random.uniform(low, 1), "keep": 1.0}[direction]
        return F.interpolate(x, size=[int(n * factor) for n in base], mode=_mode())

    def _noisy(self, x: Tensor, settings: Round) -> Tensor:
        if random.random() < 0.5:
            return self.functions.random_add_gaussian_noise_pt(x, settings.sigma, settings.grey, True, False)
        return self.functions.random_add_poisson_noise_pt(x, settings.poisson, settings.grey, True, False)

    def _compressed(self, x: Tensor, settings: Round) -> Tensor:
        quality = x.new_zeros(x.shape[0]).uniform_(*settings.quality)
        return self.jpeg(x.clamp(0, 1), quality=quality).contiguous()  # filter2D needs that

    def _kernel(self, sigma: tuple[float, float]) -> Any:
        size = random.choice(range(7, WINDOW + 1, 2))
        if random.random() < 0.1:
            return self._sinc(1 / 3 if size < 13 else 1 / 5, size)
        kernel = self.functions.random_mixed_kernels(
            KINDS, CHANCES, size, sigma, sigma, [-np.pi, np.pi], [0.5, 4], [1, 2]
        )
        return np.pad(kernel, (WINDOW - size) // 2)

    def _sinc(self, least: float, size: int = 0) -> Any:
        size = size or random.choice(range(7, WINDOW + 1, 2))
        cutoff = np.pi * random.uniform(least, 1)
        return self.functions.circular_lowpass_kernel(cutoff, size, pad_to=WINDOW)

    def _nothing(self) -> Any:
        return np.pad(np.ones((1, 1)), WINDOW // 2)


def _mode() -> str:
    return random.choice(("area", "bilinear", "bicubic"))


def main() -> None:
    options = _options()
    title = f"{options.batch}x3x{options.size}x{options.size} to 1/{options.scale}"
    what = f"Real-ESRGAN's degradation, {title}"
    with ExitStack() as stack:
        sides = {}
        try:
            for name in (OURS, GIVEN, KEPT, DRAWN):
                side = Side(prepare, name, options, kept=name in (OURS, KEPT), device=options.device)
                sides[name] = stack.enter_context(side)
                sides[name].prepare()
        except PeerMissingError as missing:
            console().print(f"not measured: {missing}")
            save_rows(not_measured([(what, TARGET)], str(missing)), options.rows)
            return
        in_turns(sides, WARM_UP)
        times = in_turns(sides, 5 if options.quick else options.rounds)
    comparison(f"{title}, {machine(options.device, options.threads)}", times, reference=GIVEN, against=OURS)
    totals = {name: sum(t.wall) for name, t in times.items()}
    console().print(f"  all rounds together: {totals[GIVEN] / totals[OURS]:.2f}")
    faster = ratio(times[GIVEN], times[OURS])
    save_rows([Row(what, f"{faster:.1f} times BasicSR's speed", TARGET, faster >= 5)], options.rows)


def _options() -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("--batch", type=int, default=16)
    made.add_argument("--size", type=int, default=128)
    made.add_argument("--scale", type=int, default=4, choices=(2, 4))
    made.add_argument("--rounds", type=int, default=20)
    made.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    made.add_argument("--threads", type=int, default=0, help="0: what torch chooses")
    return made.parse_args()


def prepare(side: str, options: argparse.Namespace) -> Prepared:
    """A call that degrades one batch on one side, each time with the next seed. Raises `PeerMissingError`."""
    if options.threads:
        torch.set_num_threads(options.threads)
    clean = photos_as_in_training(options)
    if side == OURS:
        return _ours(clean, options.scale), None
    return _theirs(clean, BasicSRRecipe(options.scale, options.device), drawn=side == DRAWN), None


def _ours(clean: Tensor, scale: int) -> Callable[[], Tensor]:
    degradation = build(parts("degradation")[f"real_esrgan_x{scale}"], "degradation")
    keys: Iterator[Tensor] = (
        torch.tensor([sample_key(0, step, index) for index in range(clean.shape[0])]).to(clean.device)
        for step in count()
    )
    return lambda: degradation(clean, KeyedGenerator(next(keys))).image


def _theirs(clean: Tensor, recipe: BasicSRRecipe, *, drawn: bool) -> Callable[[], Tensor]:
    steps = count()
    given = [recipe.kernels(clean.shape[0]) for _ in range(8)]

    def call() -> Tensor:
        step = next(steps)
        random.seed(step)
        torch.manual_seed(step)
        np.random.seed(step)  # noqa: NPY002, theirs
        kernels = recipe.kernels(clean.shape[0]) if drawn else given[step % len(given)]
        random.seed(step)  # the same resizes with given and with drawn kernels
        return recipe.degrade(clean, kernels)

    return call


if __name__ == "__main__":
    main()
