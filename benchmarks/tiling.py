"""A photo of 12 megapixels in tiles against one un-tiled pass: time, memory, and whether seams can be seen.

    python benchmarks/tiling.py [--megapixels 12] [--network dncnn_small] [--tile N] [--rounds 3] [--quick]

Both through `Restorer` in float32, each in a process of its own, so that the peak of its memory is its own;
the memory is what came on top of the process before it had a photo, photo and result included. Weights are
random. The network is one of conf/network; a fully convolutional one has no seams to show.
"""

import argparse
from contextlib import ExitStack

import numpy as np
import torch
from sides import Prepared, Side, in_turns
from timing import Row, console, machine, milliseconds, parser, print_table, ratio, save_rows

from restora.artifact.restorer import TILE, Restorer
from restora.config import build, compose
from restora.networks.base import Network

SLOWER, SEAM = 1.1, 1 / 255
TILED, WHOLE = "in tiles", "in one piece"


def main() -> None:
    options = _options()
    height, width = (round(side * (options.megapixels / 12) ** 0.5) for side in (3000, 4000))
    with ExitStack() as stack:
        sides = {
            name: stack.enter_context(Side(prepare, options.network, height, width, tile, kept=True))
            for name, tile in ((TILED, options.tile), (WHOLE, 0))
        }
        outputs = {name: side.prepare() for name, side in sides.items()}
        times = in_turns(sides, 1 if options.quick else options.rounds)
        memory = {name: peak - before for name, (peak, before) in ((n, s.memory()) for n, s in sides.items())}
    difference = float(np.abs(outputs[TILED] - outputs[WHOLE]).max())
    rows = [
        [
            name,
            milliseconds(t.median()),
            t.spread(),
            milliseconds(t.median("processor")),
            f"{memory[name] / 2**20:,.0f}",
        ]
        for name, t in times.items()
    ]
    title = f"{options.network}, {width}x{height}, tiles of {options.tile}, {machine()}"
    print_table(title, ["", "wall ms", "quartiles", "processor ms", "memory MiB"], rows)
    slower = ratio(times[TILED], times[WHOLE])
    console().print(f"  tiles take {slower:.2f} times as long; largest difference {255 * difference:.4f}/255")
    what = f"{options.megapixels:g} MP in tiles, {options.network}"
    shown = f"{memory[TILED] / 2**20:,.0f} MiB for {memory[WHOLE] / 2**20:,.0f}"
    save_rows(
        [
            Row(f"{what}: time", f"{slower:.2f} x one pass", f"<= {SLOWER} x", slower <= SLOWER),
            Row(f"{what}: memory", shown, "bounded by the tile", memory[TILED] < memory[WHOLE]),
            Row(f"{what}: seams", f"{255 * difference:.4f}/255", "<= 1/255", difference <= SEAM),
        ],
        options.rows,
    )


def _options() -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("--megapixels", type=float, default=12.0)
    made.add_argument("--network", default="dncnn_small")
    made.add_argument("--tile", type=int, default=TILE)
    made.add_argument("--rounds", type=int, default=3)
    return made.parse_args()


def prepare(name: str, height: int, width: int, tile: int) -> Prepared:
    """Restoring one photo; the result is sent back."""
    torch.manual_seed(0)
    network: Network = build(compose("train", [f"network={name}"]).network)
    restorer = Restorer(network=network, device="cpu", tile=tile)
    photo = torch.rand(1, network.in_channels, height, width)
    return lambda: restorer(photo), restorer(photo).numpy()


if __name__ == "__main__":
    main()
