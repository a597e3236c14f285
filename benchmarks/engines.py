"""What `engine="auto"` picks against torch, ONNX Runtime and OpenVINO, network by network.

    python benchmarks/engines.py [--networks dncnn,nafnet_small,imdn,restormer_small] [--side 256] [--quick]

Each network (of conf/network, random weights) is exported to a model folder in a temporary place, whose table
`auto` goes by; then the four restore a photo in turns, in an order that is drawn anew. On a CPU, in float32.
"""

import random
import tempfile
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
    save_rows,
)

from restora.artifact.engines import ENGINES, available
from restora.artifact.export import export_model
from restora.artifact.restorer import Restorer
from restora.artifact.sources import Loaded
from restora.config import build, option

SLOWER = 1.05


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--networks", default="dncnn,nafnet_small,imdn,restormer_small")
    made.add_argument("--side", type=int, default=256)
    made.add_argument("--rounds", type=int, default=12)
    options = made.parse_args()
    names = [name for name in ENGINES if name == "auto" or available(name)]
    rows = []
    for network in options.networks.split(","):
        times, chosen = measure(network, names, options.side, 4 if options.quick else options.rounds)
        best = min((name for name in names if name != "auto"), key=lambda name: times[name].median())
        slower = ratio(times["auto"], times[best])
        table = [
            [name, milliseconds(taken.median()), taken.spread(), milliseconds(taken.median("processor"))]
            for name, taken in times.items()
        ]
        print_table(
            f"{network}, {options.side}x{options.side}, auto is {chosen}, {machine()}",
            ["engine", "wall ms", "quartiles", "processor ms"],
            table,
        )
        shown = ", ".join(f"{name} {milliseconds(times[name].median())}" for name in names if name != "auto")
        met = None if len(names) < len(ENGINES) else slower <= SLOWER
        rows.append(
            Row(
                f"{network}: engine auto ({chosen})",
                f"{slower:.2f} x the best ({shown} ms)",
                f"<= {SLOWER} x the best of three",
                met,
            )
        )
    missing = [name for name in ENGINES if name not in names]
    if missing:
        console().print(f"  not installed: {', '.join(missing)}")
    save_rows(rows, options.rows)


def measure(name: str, engines: list[str], side: int, rounds: int) -> tuple[dict[str, Times], str]:
    """Times by engine, and which one `auto` took."""
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
        photo = torch.rand(1, network.in_channels, side, side)
        condition = None
        if network.condition_channels:
            condition = torch.full((1, network.condition_channels, side, side), 0.1)
        ways = {
            engine: (lambda restorer=restorer: restorer(photo, condition))  # type: ignore[misc]
            for engine, restorer in restorers.items()
        }
        for way in ways.values():
            way()
        times = {engine: Times() for engine in engines}
        for number in range(rounds):
            # who comes after whom changes: each leaves caches and threads that wait a while behind
            order = random.Random(number).sample(engines, len(engines))
            taken = interleaved({engine: ways[engine] for engine in order}, rounds=1, warm_up=0)
            for engine, found in taken.items():
                times[engine].wall += found.wall
                times[engine].processor += found.processor
        return times, restorers["auto"].engine


if __name__ == "__main__":
    main()
