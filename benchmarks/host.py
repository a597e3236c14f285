"""What the host does for a training step, which a GPU waits for: steps so small that arithmetic is nothing.

    python benchmarks/host.py [--only nafnet,dncnn] [--steps 30] [--quick]

Milliseconds on one thread, batches of one patch of 16x16 (or the smallest that the network takes). Networks
have the depth of the paper and few channels: as many operations, and little arithmetic in each.
`whole` is a step as `restora train` makes it, of which data, degradation, network and optimiser are parts;
`plain` is the same network and optimiser in a loop of four lines, `spandrel` that package's network in the
same loop. `loop` is how many times the plain loop and the degradation a whole step costs: the price of
Lightning, logging, schedules and the average of the weights. Wants an idle machine.
"""

import logging
import statistics
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from networks import CASES, networks
from peers import PeerMissingError
from timing import Row, console, machine, parser, print_table, save_rows
from torch import nn

from restora.config import build, compose
from restora.networks.base import Network
from restora.training.measuring import Measurement

LOOP, NAFNET_MS = 1.2, 8.0
FAMILIES = {
    "dncnn": ["family=residual_cnn", "network=dncnn_color", "network.channels=8"],
    "unet": ["family=unet", "network=unet_small"],
    "nafnet": ["family=nafnet", "network=nafnet", "network.width=4"],
    "restormer": ["family=transformer", "network=restormer", "network.channels=8"],
    "srgan": ["experiments=quickstart/srgan"],
}
"""A network of the paper's depth for each family, but the U-Net and the GAN, whose discriminator wants larger
patches."""
_OF_SPANDREL = {
    "dncnn": {"in_channels": 3, "depth": 20, "channels": 8},
    "nafnet": {"width": 4},
    "restormer": {"channels": 8},
}


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--only", default=",".join(FAMILIES), help=f"of {', '.join(FAMILIES)}")
    made.add_argument("--steps", type=int, default=30)
    options = made.parse_args()
    options.only = options.only.split(",")
    if unknown := set(options.only) - set(FAMILIES):
        made.error(f"--only is of {', '.join(FAMILIES)}, got {', '.join(sorted(unknown))}")
    options.steps = 5 if options.quick else options.steps
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    torch.set_num_threads(1)
    cells, rows = [], []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only:
            line, found = measured(name, options, Path(folder))
            cells.append(line)
            rows += found
    header = ["", "whole", "data", "degrad.", "network", "optim.", "plain", "spandrel", "loop"]
    print_table(f"host milliseconds of a step, {machine('cpu', 1)}", header, cells)
    save_rows(rows, options.rows)


def measured(name: str, options: Namespace, folder: Path) -> tuple[list[str], list[Row]]:
    """The line of one family, and its rows of the table of targets."""
    config = compose("train", [*FAMILIES[name], *_small(name), f"data_dir={folder}", "threads=1"])
    started = time.perf_counter()
    (stage,) = Measurement(config, warm_up=5, steps=options.steps).stages()
    console().print(f"  {name}: {time.perf_counter() - started:.0f} s")
    whole = 1e3 * statistics.median(stage.seconds)
    parts = {part: whole * share for part, share in stage.shares.items()}
    network: Network = build(config.network, "network")
    plain = seconds(network, stage.patch_size, options.steps)
    theirs = _of_spandrel(name, stage.patch_size, options.steps)
    opponent = name == "srgan"  # its step trains a discriminator too: no plain loop of one network compares
    loop = whole / (plain + parts["degradation"])
    line = [name, *(f"{value:.1f}" for value in (whole, *(parts[p] for p in parts)))]
    line += [f"{plain:.1f}", theirs, "" if opponent else f"{loop:.2f}"]
    rows = []
    if not opponent:
        rows.append(Row(f"host: loop around {name}", f"{loop:.2f} x", f"<= {LOOP} x", loop <= LOOP))
    if name == "nafnet":
        rows.append(
            Row("host: step of NAFNet-32", f"{whole:.1f} ms", f"<= {NAFNET_MS:g} ms", whole <= NAFNET_MS)
        )
    return line, rows


def _small(name: str) -> list[str]:
    if name == "srgan":
        return []
    return ["data.patch_size=16", "data.batch_size=1", "data.workers=0", "data.stages=null"]


def seconds(network: nn.Module, side: int, steps: int) -> float:
    """Milliseconds of a step in a plain loop."""
    channels = getattr(network, "in_channels", 3)
    x = torch.rand(1, channels, side, side)
    network.train()
    with torch.no_grad():
        clean = torch.rand_like(network(x))
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-6, fused=True)
    return 1e3 * _timed(lambda: _step(network, optimiser, x, clean), steps)


def _step(network: nn.Module, optimiser: torch.optim.Optimizer, x: torch.Tensor, clean: torch.Tensor) -> None:
    optimiser.zero_grad()
    F.l1_loss(network(x), clean).backward()
    optimiser.step()


def _timed(call: Callable[[], None], steps: int) -> float:
    taken = []
    for number in range(5 + steps):
        started = time.perf_counter()
        call()
        if number >= 5:
            taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def _of_spandrel(name: str, side: int, steps: int) -> str:
    """Milliseconds of spandrel's network of the same size, where it has one."""
    if name not in _OF_SPANDREL:
        return "none"
    case = CASES[name]
    try:
        _, theirs = networks(type(case)(case.title, case.network, _OF_SPANDREL[name]))
    except PeerMissingError:
        return "not installed"
    return f"{seconds(theirs.requires_grad_(True), side, steps):.1f}"


if __name__ == "__main__":
    main()
