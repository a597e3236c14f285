"""A photo of 12 megapixels in tiles against one un-tiled pass: time, memory, and whether seams can be seen.

    python benchmarks/tiling.py [--megapixels 12] [--network dncnn_small] [--tile N] [--rounds 3] [--quick]

Both use `Restorer` in float32, each in a separate process, so that the peak of its memory is its own. The
memory is the increase over the process before it had a photo, photo and result included. The memory beyond
these two is compared with that of a photo of one tile, in a third process: the tile bounds it if both are
about equal. Weights are random. The network is one of conf/network; a fully convolutional one has no seams to
show.
"""

import argparse
import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from sides import Prepared, Side, in_turns
from timing import Row, console, machine, milliseconds, parser, print_table, ratio, save_rows

from restora.artifact.restorer import TILE, Restorer
from restora.config import build, compose
from restora.networks.base import Network

SLOWER, SEAM = 1.1, 1 / 255
MORE = 1.5
"""With blending and the allocator's gaps it was 0.9 to 1.2 for photos of 3 to 36 megapixels."""
TILED, WHOLE, ONE = "in tiles", "in one piece", "one tile alone"


def main() -> None:
    options = _options()
    height, width = (round(side * (options.megapixels / 12) ** 0.5) for side in (3000, 4000))
    photos = {
        TILED: (height, width, options.tile),
        WHOLE: (height, width, 0),
        ONE: (options.tile, options.tile, 0),
    }
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        sides = {
            name: stack.enter_context(Side(prepare, options.network, *photo, folder / name, kept=True))
            for name, photo in photos.items()
        }
        held = {name: side.prepare() for name, side in sides.items()}
        times = in_turns(
            {name: sides[name] for name in (TILED, WHOLE)}, 1 if options.quick else options.rounds
        )
        memory = {name: peak - before for name, (peak, before) in ((n, s.memory()) for n, s in sides.items())}
        tiled, whole = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in (TILED, WHOLE))
        difference = float(np.abs(tiled - whole).max())
    beyond = {name: memory[name] - held[name] for name in sides}
    rows = [
        [
            name,
            *([milliseconds(t.median()), t.spread(), milliseconds(t.median("processor"))] if t else [""] * 3),
            mebibytes(memory[name]),
            mebibytes(beyond[name]),
        ]
        for name, t in ((name, times.get(name)) for name in sides)
    ]
    title = f"{options.network}, {width}x{height}, tiles of {options.tile}, {machine()}"
    header = ["", "wall ms", "quartiles", "processor ms", "memory MiB", "beyond photo and result"]
    print_table(title, header, rows)
    slower = ratio(times[TILED], times[WHOLE])
    console().print(f"  tiles take {slower:.2f} times as long; largest difference {255 * difference:.4f}/255")
    what = f"{options.megapixels:g} MP in tiles, {options.network}"
    shown = (
        f"{mebibytes(memory[TILED])} MiB for {mebibytes(memory[WHOLE])}; beyond photo and result "
        f"{mebibytes(beyond[TILED])}, one tile {mebibytes(beyond[ONE])}"
    )
    save_rows(
        [
            Row(f"{what}: time", f"{slower:.2f} x one pass", f"<= {SLOWER} x", slower <= SLOWER),
            Row(f"{what}: memory", shown, f"<= {MORE} x one tile", beyond[TILED] <= MORE * beyond[ONE]),
            Row(f"{what}: seams", f"{255 * difference:.4f}/255", "<= 1/255", difference <= SEAM),
        ],
        options.rows,
    )


def mebibytes(count: int) -> str:
    return f"{count / 2**20:,.0f}"


def _options() -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("--megapixels", type=float, default=12.0)
    made.add_argument("--network", default="dncnn_small")
    made.add_argument("--tile", type=int, default=TILE)
    made.add_argument("--rounds", type=int, default=3)
    return made.parse_args()


def prepare(name: str, height: int, width: int, tile: int, result: Path) -> Prepared:
    """A call that restores one photo. The result is saved; the bytes of photo and result are sent back."""
    torch.manual_seed(0)
    network: Network = build(compose("train", [f"network={name}"]).network, "network")
    restorer = Restorer(network=network, device="cpu", tile=tile)
    photo = torch.rand(1, network.in_channels, height, width)
    restored = restorer(photo)
    np.save(result.with_suffix(".npy"), restored.numpy())
    return lambda: restorer(photo), photo.nbytes + restored.nbytes


if __name__ == "__main__":
    main()
