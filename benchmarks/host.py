"""The host's time for a training step, which a GPU waits for: steps with very little arithmetic.

    python benchmarks/host.py [--only nafnet,dncnn] [--steps 100] [--compile default] [--quick]

Milliseconds of processor time on one thread, medians, batches of one patch of 16x16 (or the smallest that
the network takes). Networks have the depth of the paper and few channels: as many operations, with little
arithmetic in each. `whole` is a step as in `restora train`, with all callbacks of a run. After each one the
same network makes a step in a plain loop of four lines, so that a busy machine slows both; `forward`,
`backward` and `optim.` are the times of that step. Afterwards spandrel's network is trained in the same loop.
With `--compile` both are compiled, restora's as `compile=` says, the plain one as one graph (with
TORCHINDUCTOR_CPP_WRAPPER=1 both are called from C++). `data` cuts the crop, `degrad.` degrades it, `average`
updates the average of the weights; `loop` is the rest: Lightning, objectives, schedules, logging, the check
for steps that are not finite. `ratio` is the whole divided by the whole without `loop`.
"""

import logging
import statistics
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback
from lightning.pytorch.loggers.logger import Logger
from networks import CASES, networks
from omegaconf import OmegaConf
from peers import PeerMissingError
from timing import Row, console, machine, parser, print_table, save_rows
from torch import nn

from restora.config import build, compose
from restora.data.crops import CropBatches
from restora.training.build import build_callbacks, build_parts, build_trainer
from restora.training.metrics_csv import MetricsCsv
from restora.training.run import quieten

_WARM_UP = 20
LOOP, NAFNET_MS = 1.2, 8.0
FAMILIES = {
    "dncnn": ["family=residual_cnn", "network=dncnn_color", "network.channels=8"],
    "unet": ["family=unet", "network=unet_small"],
    "nafnet": ["family=nafnet", "network=nafnet", "network.width=4"],
    "restormer": ["family=transformer", "network=restormer", "network.channels=8"],
    "srgan": ["experiments=quickstart/srgan"],
}
"""A network of the paper's depth for each family, except for the U-Net and the GAN, whose discriminator needs
larger patches."""
_OF_SPANDREL = {
    "dncnn": {"in_channels": 3, "depth": 20, "channels": 8},
    "nafnet": {"width": 4},
    "restormer": {"channels": 8},
}


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--only", default=",".join(FAMILIES), help=f"of {', '.join(FAMILIES)}")
    made.add_argument("--steps", type=int, default=100)
    made.add_argument("--compile", default="false", help="as compile= of a training")
    options = made.parse_args()
    options.only = options.only.split(",")
    if unknown := set(options.only) - set(FAMILIES):
        made.error(f"--only is of {', '.join(FAMILIES)}, got {', '.join(sorted(unknown))}")
    options.steps = 20 if options.quick else options.steps
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    torch.set_num_threads(1)
    cells, rows = [], []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only:
            started = time.perf_counter()
            line, found = measured(name, options, Path(folder))
            console().print(f"  {name}: {time.perf_counter() - started:.0f} s")
            cells.append(line)
            rows += found
    header = ["", *PARTS, "loop", "whole", "ratio", "spandrel"]
    print_table(f"host milliseconds of a step, {machine('cpu', 1)}", header, cells)
    save_rows(rows, options.rows)


PARTS = ("forward", "backward", "optim.", "average", "data", "degrad.")


def measured(name: str, options: Namespace, folder: Path) -> tuple[list[str], list[Row]]:
    """The line of one family, and its rows in the table of targets."""
    taken = steps_of(name, options.steps, folder, options.compile)
    found = {part: statistics.median(values) for part, values in taken.items()}
    whole, theirs = found["whole"], found.get("spandrel")
    if "forward" not in found:  # its step also trains a discriminator, unlike the plain loop
        cells = [f"{found[part]:.1f}" if part in found else "" for part in PARTS]
        return [name, *cells, "", f"{whole:.1f}", "", ""], []
    without = sum(found[part] for part in PARTS)
    ratio = whole / without
    line = [name, *(f"{found[part]:.1f}" for part in PARTS), f"{whole - without:.1f}", f"{whole:.1f}"]
    line += [f"{ratio:.2f}", "none" if theirs is None else f"{theirs:.1f}"]
    rows = [Row(f"host: loop around {name}", f"{ratio:.2f} x", f"<= {LOOP} x", ratio <= LOOP)]
    if name == "nafnet":
        met = whole <= NAFNET_MS
        rows.append(Row("host: step of NAFNet-32", f"{whole:.1f} ms", f"<= {NAFNET_MS:g} ms", met))
    return line, rows


def steps_of(name: str, steps: int, folder: Path, compiled: str = "false") -> dict[str, list[float]]:
    """Milliseconds of the steps of a run after the warm-up, and of the plain and spandrel's steps."""
    words = [f"data_dir={folder}", "threads=1", f"compile={compiled}"]
    config = compose("train", [*FAMILIES[name], *_small(name), *words])
    OmegaConf.set_struct(config, False)
    config.run_dir = str(folder / name)
    config.trainer.update(
        max_steps=_WARM_UP + steps, max_time=None, limit_val_batches=0, enable_progress_bar=False
    )
    quieten(config)
    parts = build_parts(config)
    clocks = Clocks()
    clocks.watch(parts.family, "update_ema", "average")
    clocks.watch(parts.data, "degraded", "degrad.")
    clocks.watch(CropBatches, "cut", "data")
    side = int(config.data.patch_size) // parts.network.scale
    x = torch.rand(1, parts.network.in_channels, side, side)
    callbacks = [*build_callbacks(config), Steps(clocks)]
    if name != "srgan":
        plain = build(config.network, "network")
        plain = plain.to(memory_format=torch.channels_last)  # as families do
        if compiled != "false":
            plain.compile(dynamic=False)
        callbacks[-1] = Steps(clocks, Plain(plain, x.contiguous(memory_format=torch.channels_last)))
    loggers: list[Logger] = [MetricsCsv(path=folder / name / "metrics.csv")]
    try:
        build_trainer(config, parts.family, callbacks, loggers).fit(parts.family, parts.data)
    finally:
        clocks.stop()
    if (theirs := _of_spandrel(name)) is not None:  # not during the run, whose caches it would evict
        theirs_too = Plain(theirs, x)
        for _ in range(_WARM_UP + steps):
            theirs_too.step(clocks, ("spandrel",) * 3)
            clocks.end_step()
    return {part: values[_WARM_UP:] for part, values in clocks.steps.items()}


class Clocks:
    """Milliseconds of processor time of the parts of each step."""

    def __init__(self) -> None:
        self.steps: dict[str, list[float]] = {}
        self._now: dict[str, float] = {}
        self._watched: list[tuple[Any, str, Any]] = []

    def watch(self, owner: Any, name: str, part: str) -> None:
        """Records the time of a method under `part`."""
        method = getattr(owner, name)

        def clocked(*arguments: Any, **options: Any) -> Any:
            with self.running(part):
                return method(*arguments, **options)

        self._watched.append((owner, name, method))
        setattr(owner, name, clocked)

    def stop(self) -> None:
        """Restores the watched methods."""
        for owner, name, method in self._watched:
            setattr(owner, name, method)

    @contextmanager
    def running(self, part: str) -> Iterator[None]:
        started = time.process_time()
        yield
        self.add(part, time.process_time() - started)

    def add(self, part: str, seconds: float) -> None:
        self._now[part] = self._now.get(part, 0.0) + 1e3 * seconds

    def end_step(self) -> None:
        for part, value in self._now.items():
            self.steps.setdefault(part, []).append(value)
        self._now = {}


class Plain:
    """A network trained in a plain loop."""

    def __init__(self, network: nn.Module, x: torch.Tensor) -> None:
        self.network, self.x = network.train(), x
        self.optimiser = torch.optim.AdamW(network.parameters(), lr=1e-6, fused=True)
        with torch.no_grad():
            self.clean = torch.rand_like(network(x))

    def step(self, clocks: Clocks, parts: tuple[str, str, str] = PARTS[:3]) -> None:
        """One step; `parts` are the names under which forward, backward and optimiser are recorded."""
        with clocks.running(parts[0]):
            loss = F.l1_loss(self.network(self.x), self.clean)
        with clocks.running(parts[1]):
            loss.backward()
        with clocks.running(parts[2]):
            self.optimiser.step()
            self.optimiser.zero_grad()


class Steps(Callback):
    """Times whole steps of a run, and makes a plain step after each."""

    def __init__(self, clocks: Clocks, plain: Plain | None = None) -> None:
        self.clocks, self.plain = clocks, plain
        self.started: float | None = None

    def on_train_batch_end(self, *_: Any) -> None:
        if self.started is not None:
            self.clocks.add("whole", time.process_time() - self.started)
        if self.plain is not None:
            self.plain.step(self.clocks)
        self.clocks.end_step()
        self.started = time.process_time()


def _small(name: str) -> list[str]:
    if name == "srgan":
        return []
    return ["data.patch_size=16", "data.batch_size=1", "data.workers=0", "data.stages=null"]


def _of_spandrel(name: str) -> nn.Module | None:
    """spandrel's network of the same size; None if it has none or is not installed."""
    if name not in _OF_SPANDREL:
        return None
    case = CASES[name]
    try:
        _, theirs = networks(type(case)(case.title, case.network, _OF_SPANDREL[name]))
    except PeerMissingError:
        return None
    network: nn.Module = theirs.requires_grad_(True)
    return network


if __name__ == "__main__":
    main()
