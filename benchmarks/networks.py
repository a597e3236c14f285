"""A training step and the inference of a picture: restora's networks against those of the spandrel package.

    python benchmarks/networks.py [--threads 1,2] [--only dncnn,nafnet] [--rounds 7] [--device cpu] [--quick]

Same weights (spandrel reads ours), same photos, same loss (L1) and optimiser (AdamW, fused), float32, calls
in turns; the largest difference of the outputs is printed. Widths are the papers', blocks fewer where a step
would take seconds: the title of each table says so. The step is run as the training command runs it
(channels_last, freed memory kept: for both), inference through `Restorer` as a user runs it; spandrel's
network runs in torch's default memory format. Needs spandrel: `make bench` installs it.
"""

import gc
import importlib
import math
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from peers import PeerMissingError, peer
from timing import Row, comparison, console, interleaved, machine, not_measured, parser, ratio, save_rows
from torch import Tensor, nn

from restora.artifact.restorer import Restorer
from restora.networks.base import Network
from restora.training.allocator import keep_freed_memory

LARGEST_DIFFERENCE = 1e-4
THEIRS, OURS = "spandrel", "restora"


@dataclass(frozen=True)
class Case:
    """One network: its size, what it is run on, and how many times faster than spandrel it shall be."""

    title: str
    network: str
    arguments: dict[str, Any] = field(default_factory=dict)
    patch: int = 64
    batch: int = 4
    side: int = 512
    step_target: float | None = None
    inference_target: float | None = None


CASES = {
    "nafnet": Case(
        "NAFNet of width 32, 14 of 36 blocks",
        "nafnet:NAFNet",
        {"encoder_blocks": (1, 1, 1, 4), "middle_blocks": 1, "decoder_blocks": (1, 1, 1, 1)},
        step_target=1.6,
        inference_target=1.8,
    ),
    "restormer": Case(
        "Restormer of width 48, 8 of 44 blocks",
        "restormer:Restormer",
        {"blocks": (1, 1, 1, 1), "refinement_blocks": 1},
        batch=2,
        step_target=1.7,
        inference_target=1.8,
    ),
    "dncnn": Case(
        "DnCNN, colour, 17 layers",
        "dncnn:DnCNN",
        {"in_channels": 3, "depth": 17},
        step_target=1.4,
        inference_target=2.2,
    ),
    "swinir": Case(
        "SwinIR, lightweight x2, 12 of 24 blocks",
        "swinir:SwinIR",
        {
            "channels": 60,
            "depths": (6, 6),
            "heads": (6, 6),
            "scale": 2,
            "upsampler": "pixelshuffledirect",
        },
        batch=2,
        step_target=1.1,
        inference_target=1.3,
    ),
    "rcan": Case(
        "RCAN x4, 2 x 5 of 10 x 20 blocks",
        "rcan:RCAN",
        {"groups": 2, "blocks": 5},
        patch=48,
        side=128,
        step_target=1.2,
    ),
    "rrdbnet": Case(
        "RRDBNet x4, 2 of 23 blocks", "rrdbnet:RRDBNet", {"blocks": 2}, patch=32, side=128, step_target=1.2
    ),
    "uformer": Case(
        "Uformer of width 32, 9 of 40 blocks", "uformer:Uformer", {"depths": (1,) * 9}, patch=128, batch=1
    ),
}


def main() -> None:
    options = _options()
    keep_freed_memory()
    rows: list[Row] = []
    for name in options.only:
        case = CASES[name]
        try:
            ours, theirs = networks(case)
        except PeerMissingError as error:
            console().print(f"{case.title}: {error}")
            rows += not_measured(_targets(name, options.threads), "spandrel is not installed")
            continue
        console().print(f"\n[bold]{case.title}")
        for threads in options.threads:
            torch.set_num_threads(threads)
            console().print(machine(options.device))
            rows += measure(name, ours, theirs, threads, options)
        del ours, theirs
        gc.collect()
    save_rows(rows, options.rows)


def _options() -> Namespace:
    made = parser(__doc__)
    made.add_argument("--threads", default="1,2", help="numbers of CPU threads, each measured")
    made.add_argument("--only", default=",".join(CASES), help=f"of {', '.join(CASES)}")
    made.add_argument("--parts", default="step,inference", help="step, inference or both")
    made.add_argument("--rounds", type=int, default=7)
    made.add_argument("--device", default="cpu")
    options = made.parse_args()
    options.only = options.only.split(",")
    if unknown := set(options.only) - set(CASES):
        made.error(f"--only is of {', '.join(CASES)}, got {', '.join(sorted(unknown))}")
    options.threads = [int(number) for number in options.threads.split(",")]
    options.rounds = 3 if options.quick else options.rounds
    return options


def _targets(name: str, threads: list[int]) -> list[tuple[str, str]]:
    case = CASES[name]
    parts = (("training step", case.step_target), ("inference", case.inference_target))
    return [(_what(name, part, n), f">= {t} x") for n in threads for part, t in parts if t is not None]


def _what(name: str, part: str, threads: int) -> str:
    return f"{part}, {name}, {threads} thread{'s' if threads > 1 else ''}"


def networks(case: Case) -> tuple[Network, nn.Module]:
    """Ours with random weights and spandrel's with the same. Raises `PeerMissingError`."""
    module, _, name = case.network.partition(":")
    torch.manual_seed(0)
    ours: Network = getattr(importlib.import_module(f"restora.networks.{module}"), name)(**case.arguments)
    _randomise(ours)
    registry = peer("spandrel", "MAIN_REGISTRY")
    extra = peer("spandrel_extra_arches", "EXTRA_REGISTRY")
    registry.add(*extra, ignore_duplicates=True)
    return ours, registry.load(ours.published_state_dict()).model


@torch.no_grad()
def _randomise(network: nn.Module) -> None:
    """What starts at zero or one and would hide a part of the network: residual scales, norms, statistics."""
    for name, parameter in network.named_parameters():
        if name.endswith(("beta", "gamma")):
            nn.init.normal_(parameter, std=0.1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.8, 1.2)


def measure(name: str, ours: Network, theirs: nn.Module, threads: int, options: Namespace) -> list[Row]:
    """Prints the tables of one network at one number of threads; the rows that have a target."""
    case, rows = CASES[name], []
    for part, ways, target in (
        ("training step", lambda: _steps(case, ours, theirs, options.device), case.step_target),
        ("inference", lambda: _inference(case, ours, theirs, options.device), case.inference_target),
    ):
        if part.split()[-1] not in options.parts:
            continue
        times = interleaved(ways(), rounds=options.rounds, device=options.device)
        size = f"{case.batch}x{case.patch}²" if part == "training step" else f"{case.side}²"
        comparison(f"{part}, {size}, {threads} thread(s)", times, reference=THEIRS, against=OURS)
        if target is not None:
            faster = ratio(times[THEIRS], times[OURS])
            rows.append(
                Row(_what(name, part, threads), f"{faster:.2f} x", f">= {target} x", faster >= target)
            )
    return rows


def _photos(batch: int, side: int, device: str) -> Tensor:
    return torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(side)).to(device)


def _steps(case: Case, ours: Network, theirs: nn.Module, device: str) -> dict[str, Callable[[], None]]:
    x = _photos(case.batch, case.patch, device)
    clean = _photos(case.batch, case.patch * ours.scale, device)
    ours = ours.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return {
        THEIRS: _step(theirs.to(device), lambda net: net(x.clone()), clean),  # spandrel's RCAN writes to it
        OURS: _step(ours, lambda net: net(x.contiguous(memory_format=torch.channels_last)), clean),
    }


def _step(network: nn.Module, run: Callable[[nn.Module], Tensor], clean: Tensor) -> Callable[[], None]:
    network.train().requires_grad_(True)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-6, fused=True)

    def step() -> None:
        optimiser.zero_grad()
        F.l1_loss(run(network), clean).backward()
        optimiser.step()

    return step


def _inference(case: Case, ours: Network, theirs: nn.Module, device: str) -> dict[str, Callable[[], Tensor]]:
    theirs.load_state_dict(ours.published_state_dict(), strict=False)  # training steps moved them apart
    restorer = Restorer(network=ours, device=device)
    x = _photos(1, case.side, device)
    theirs.to(device).eval()

    @torch.no_grad()
    def reference() -> Tensor:
        restored: Tensor = theirs(x.clone())
        return restored.clamp(0, 1)

    difference = float((reference() - restorer(x)).abs().max())
    console().print(f"  largest difference of the outputs: {difference:.1e}")
    if not math.isfinite(difference) or difference > LARGEST_DIFFERENCE:
        raise SystemExit(f"{case.title}: outputs differ by {difference:.1e}, so times cannot be compared")
    return {THEIRS: reference, OURS: lambda: restorer(x)}


if __name__ == "__main__":
    main()
