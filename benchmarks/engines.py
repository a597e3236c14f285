"""What `engine="auto"` picks against torch, ONNX Runtime and OpenVINO, network by network.

    python benchmarks/engines.py [--networks dncnn,nafnet_small] [--sides 256,512] [--quick]

Each network (of conf/network, random weights) is exported to a model folder in a temporary place, whose table
`auto` goes by; then the four restore a photo in turns, in an order that is drawn anew, for 20 seconds or
more. A row is missed where `auto` took another engine than the fastest and the 95% interval of the ratio lies
above the target. On a CPU, in float32.
"""

import itertools
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from timing import (
    Row,
    Times,
    console,
    interleaved,
    machine,
    milliseconds,
    parser,
    print_table,
    ratio,
    ratio_interval,
    save_rows,
)

from restora.artifact.engines import ENGINES, available
from restora.artifact.export import export_model
from restora.artifact.restorer import Restorer
from restora.artifact.sources import Loaded
from restora.config import build, option
from restora.networks.base import Network

SLOWER = 1.05
SECONDS = 20.0
"""Least time for a network and a side; also a least number of rounds is made."""


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--networks", default="dncnn,nafnet_small,imdn,restormer_small")
    made.add_argument("--sides", default="256,512")
    made.add_argument("--rounds", type=int, default=12)
    options = made.parse_args()
    names = [name for name in ENGINES if name == "auto" or available(name)]
    rows = []
    sides = [int(side) for side in options.sides.split(",")]
    measured = (
        (network, side, times, chosen)
        for network in options.networks.split(",")
        for side, (times, chosen) in measure(network, names, sides, 4 if options.quick else options.rounds)
    )
    for network, side, times, chosen in measured:
        best = min((name for name in names if name != "auto"), key=lambda name: times[name].median())
        slower = ratio(times["auto"], times[best])
        low, high = ratio_interval(times["auto"], times[best])
        table = [
            [name, milliseconds(taken.median()), taken.spread(), milliseconds(taken.median("processor"))]
            for name, taken in times.items()
        ]
        print_table(
            f"{network}, {side}x{side}, auto is {chosen}, {machine()}",
            ["engine", "wall ms", "quartiles", "processor ms"],
            table,
        )
        shown = ", ".join(f"{name} {milliseconds(times[name].median())}" for name in names if name != "auto")
        right = chosen == best or low <= SLOWER  # two of one engine differ only by noise
        met = None if len(names) < len(ENGINES) else right
        row = Row(
            f"{network} {side}x{side}: engine auto ({chosen})",
            f"{slower:.2f} ({low:.2f} to {high:.2f}) x the best ({shown} ms)",
            f"<= {SLOWER} x the best of three",
            met,
        )
        console().print(f"  {row.what}: {row.measured}")
        rows.append(row)
    missing = [name for name in ENGINES if name not in names]
    if missing:
        console().print(f"  not installed: {', '.join(missing)}")
    save_rows(rows, options.rows)


def measure(
    name: str, engines: list[str], sides: list[int], rounds: int
) -> Iterator[tuple[int, tuple[dict[str, Times], str]]]:
    """For each side of the photo: the times by engine, and the engine that `auto` took."""
    torch.manual_seed(0)
    node = option("network", name)
    network = build(node, "network").eval()
    arguments = {key: value for key, value in node.items() if key != "_target_"}
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "model"
        source = Loaded(name=name, network=network, source=name, arguments=arguments)
        description = export_model(source, target, wanted=["onnx", "openvino"])
        for format_name, reason in description.parity["left_out"].items():
            console().print(f"  {name}: {format_name} left out: {reason}")
        restorers = {
            engine: Restorer.load(target, device="cpu", engine=engine, sigma=25) for engine in engines
        }
        for side in sides:
            yield side, (in_turns(restorers, network, side, rounds), restorers["auto"].engine)


def in_turns(restorers: dict[str, Restorer], network: Network, side: int, rounds: int) -> dict[str, Times]:
    """Each engine restores a photo in each round, in a random order."""
    photo = torch.rand(1, network.in_channels, side, side)
    maps = network.condition_channels
    condition = torch.full((1, maps, side, side), 0.1) if maps else None
    ways = {
        engine: (lambda restorer=restorer: restorer(photo, condition))  # type: ignore[misc]
        for engine, restorer in restorers.items()
    }
    for way in ways.values():
        way()
    times = {engine: Times() for engine in restorers}
    end = time.perf_counter() + SECONDS
    for number in itertools.count():
        if number >= rounds and time.perf_counter() > end:
            break
        # the order changes, because each engine leaves caches and waiting threads to the next
        order = random.Random(number).sample(list(ways), len(ways))
        taken = interleaved({engine: ways[engine] for engine in order}, rounds=1, warm_up=0)
        for engine, found in taken.items():
            times[engine].wall += found.wall
            times[engine].processor += found.processor
    return times


if __name__ == "__main__":
    main()
