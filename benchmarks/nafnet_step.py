"""One training step of NAFNet in float32: restora's formulation against the authors' as spandrel carries it.

    python benchmarks/nafnet_step.py [--width 32] [--patch 64] [--batch 4] [--rounds 12] [--threads N]

Same weights, same photos, same loss (PSNR) and same optimiser (AdamW), steps interleaved. Prints the median
of each in wall-clock and in processor time, and the medians of the ratios within a round, which a busy
machine disturbs least. Needs spandrel (`make test` installs it beside the environment).
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from restora.losses.pixel import PSNRLoss
from restora.networks.nafnet import NAFNet

ENCODER, MIDDLE, DECODER = [1, 1, 1, 4], 1, [1, 1, 1, 1]


def main() -> None:
    options = _options()
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    networks = _networks(options.width)
    photos = torch.rand(2, options.batch, 3, options.patch, options.patch)
    with torch.no_grad():
        expected = networks["authors' code"](photos[0])
        for name, network in networks.items():
            print(f"{name:30} largest difference {(network(photos[0]) - expected).abs().max():.1e}")
    steps = {name: _step(network, photos) for name, network in networks.items()}
    for step in steps.values():
        step()  # first calls choose kernels
    _report(_measure(steps, options.rounds))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--patch", type=int, default=64)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=0, help="0: what torch chooses")
    return parser.parse_args()


def _networks(width: int) -> dict[str, nn.Module]:
    """The authors' formulation in both memory formats, and ours, with the same random weights."""
    reference = _reference()
    made = [
        reference(
            img_channel=3, width=width, enc_blk_nums=ENCODER, middle_blk_num=MIDDLE, dec_blk_nums=DECODER
        )
        for _ in range(2)
    ]
    for name, parameter in made[0].named_parameters():
        if name.endswith(("beta", "gamma")):  # zero at the start: half of the network would be dead
            nn.init.normal_(parameter, std=0.1)
    ours = NAFNet(width=width, encoder_blocks=ENCODER, middle_blocks=MIDDLE, decoder_blocks=DECODER)
    for network in (made[1], ours):
        network.load_state_dict(made[0].state_dict())
        network.to(memory_format=torch.channels_last)
    return {"authors' code": made[0], "authors' code, channels_last": made[1], "restora": ours}


def _reference() -> Callable[..., nn.Module]:
    peers = Path(sys.prefix) / "peers"
    if peers.is_dir():
        sys.path.append(str(peers))
    operators = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):  # a CPU-only torch lacks them, and torchvision's import asks for them
        operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from spandrel.architectures.NAFNet import NAFNet as Reference

    return Reference


def _step(network: nn.Module, photos: torch.Tensor) -> Callable[[], None]:
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
    loss = PSNRLoss()

    def step() -> None:
        optimiser.zero_grad()
        loss(network(photos[0]), photos[1]).backward()
        optimiser.step()

    return step


def _measure(steps: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Wall-clock and processor seconds of every round, by name."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            wall, processor = time.perf_counter(), time.process_time()
            step()
            seconds[name].append((time.perf_counter() - wall, time.process_time() - processor))
    return seconds


def _report(seconds: dict[str, list[tuple[float, float]]]) -> None:
    print(f"{'':30} {'wall ms':>9} {'ratio':>6} {'processor ms':>13} {'ratio':>6}")
    first = next(iter(seconds.values()))
    for name, rounds in seconds.items():
        cells = []
        for kind in (0, 1):
            median = statistics.median(r[kind] for r in rounds)
            ratio = statistics.median(a[kind] / b[kind] for a, b in zip(first, rounds, strict=True))
            cells.append((1e3 * median, ratio))
        (wall, wall_ratio), (processor, processor_ratio) = cells
        print(f"{name:30} {wall:9.1f} {wall_ratio:6.2f} {processor:13.1f} {processor_ratio:6.2f}")


if __name__ == "__main__":
    main()
