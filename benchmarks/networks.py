"""A training step and the inference of a picture: restora's networks against those of the spandrel package.

    python benchmarks/networks.py [--threads 1,2] [--only dncnn,nafnet] [--rounds 7] [--device cpu] [--quick]

Same weights (spandrel reads ours), same photos, same loss (L1) and optimiser (AdamW, fused), float32, calls
in turns; the largest difference of the outputs is printed. Widths and patches are the papers', blocks and
batches smaller where a step would take many seconds: the title of each table says so. DnCNN has the paper's
batch of 128 patches of 40x40, and a small one besides. Each row has a process of its own, as its users run
it: restora's step in channels_last with freed memory kept, as `restora train` does, and inference through
`Restorer`; spandrel's network in torch's default memory format and under the C library's default allocator. A
third row shows it with freed memory kept too. Needs spandrel: `make bench` installs it.
"""

import importlib
from argparse import Namespace
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
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
from torch import Tensor, nn

from restora.artifact.restorer import Restorer
from restora.networks.base import Network

LARGEST_DIFFERENCE = 1e-4
THEIRS, KEPT, OURS = "spandrel", "spandrel, memory kept", "restora"
PARTS = {"step": "training step", "inference": "inference"}


@dataclass(frozen=True)
class Case:
    """One network: its size, its inputs (`side` None: no inference), and the targets of how many times faster
    than spandrel its step and inference are."""

    title: str
    network: str
    arguments: dict[str, Any] = field(default_factory=dict)
    patch: int = 64
    batch: int = 4
    side: int | None = 512
    targets: tuple[float | None, float | None] = (None, None)

    def parts(self, chosen: list[str]) -> list[tuple[str, float | None]]:
        """(part, target) of the chosen parts."""
        named = zip(PARTS.items(), self.targets, strict=True)
        known = PARTS if self.side else {"step"}
        return [(part, target) for (word, part), target in named if word in chosen and word in known]


_NAFNET = {"encoder_blocks": (1, 1, 1, 4), "middle_blocks": 1, "decoder_blocks": (1, 1, 1, 1)}
_RESTORMER = {"blocks": (1, 1, 1, 1), "refinement_blocks": 1}
_DNCNN = {"in_channels": 3, "depth": 17}
_SWINIR = {"channels": 60, "depths": (6, 6), "heads": (6, 6), "scale": 2, "upsampler": "pixelshuffledirect"}
_RCAN = {"groups": 2, "blocks": 5}
CASES = {
    "nafnet": Case(
        "NAFNet of width 32, 14 of 36 blocks",
        "nafnet:NAFNet",
        _NAFNET,
        patch=256,
        batch=1,
        targets=(1.6, 1.8),
    ),
    "restormer": Case(
        "Restormer of width 48, 8 of 44 blocks",
        "restormer:Restormer",
        _RESTORMER,
        patch=128,
        batch=1,
        targets=(1.7, 1.8),
    ),
    "dncnn": Case(
        "DnCNN, colour, 17 layers, the paper's batch",
        "dncnn:DnCNN",
        _DNCNN,
        patch=40,
        batch=128,
        targets=(1.4, 2.2),
    ),
    "dncnn_small": Case(
        "DnCNN, colour, 17 layers, a small batch",
        "dncnn:DnCNN",
        _DNCNN,
        patch=48,
        batch=32,
        side=None,
        targets=(1.4, None),
    ),
    "swinir": Case(
        "SwinIR, lightweight x2, 12 of 24 blocks", "swinir:SwinIR", _SWINIR, batch=2, targets=(1.1, 1.3)
    ),
    "rcan": Case(
        "RCAN x4, 2 x 5 of 10 x 20 blocks", "rcan:RCAN", _RCAN, patch=48, side=128, targets=(1.2, None)
    ),
    "rrdbnet": Case(
        "RRDBNet x4, 2 of 23 blocks",
        "rrdbnet:RRDBNet",
        {"blocks": 2},
        patch=32,
        side=128,
        targets=(1.2, None),
    ),
    "uformer": Case(
        "Uformer of width 32, 9 of 40 blocks", "uformer:Uformer", {"depths": (1,) * 9}, patch=128, batch=1
    ),
}


def main() -> None:
    options = _options()
    rows: list[Row] = []
    for name in options.only:
        case = CASES[name]
        console().print(f"\n[bold]{case.title}")
        try:
            rows += measure(name, options)
        except PeerMissingError as error:
            console().print(str(error))
            rows += not_measured(_targets(name, options), "spandrel is not installed")
    save_rows(rows, options.rows)


def _options() -> Namespace:
    made = parser(__doc__)
    made.add_argument("--threads", default="1,2", help="numbers of CPU threads, each measured")
    made.add_argument("--only", default=",".join(CASES), help=f"of {', '.join(CASES)}")
    made.add_argument("--parts", default="step,inference", help=f"of {', '.join(PARTS)}")
    made.add_argument("--rounds", type=int, default=7)
    made.add_argument("--device", default="cpu")
    options = made.parse_args()
    for word, known in (("only", CASES), ("parts", PARTS)):
        given = getattr(options, word).split(",")
        setattr(options, word, given)
        if unknown := set(given) - set(known):
            made.error(f"--{word} is of {', '.join(known)}, got {', '.join(sorted(unknown))}")
    options.threads = [int(number) for number in options.threads.split(",")]
    options.rounds = 3 if options.quick else options.rounds
    return options


def _targets(name: str, options: Namespace) -> list[tuple[str, str]]:
    parts = [(part, target) for part, target in CASES[name].parts(options.parts) if target is not None]
    return [(_what(name, part, n), f">= {t} x") for n in options.threads for part, t in parts]


def _what(name: str, part: str, threads: int) -> str:
    case = CASES[name]
    batch = f" of {case.batch}x{case.patch}²" if part == "training step" else ""
    return f"{part}{batch}, {name.removesuffix('_small')}, {threads} thread{'s' if threads > 1 else ''}"


def own_network(case: Case) -> Network:
    """Our network with random weights."""
    module, _, name = case.network.partition(":")
    torch.manual_seed(0)
    ours: Network = getattr(importlib.import_module(f"restora.networks.{module}"), name)(**case.arguments)
    _randomise(ours)
    return ours


def networks(case: Case) -> tuple[Network, nn.Module]:
    """Our network with random weights and spandrel's with the same weights. Raises `PeerMissingError`."""
    ours = own_network(case)
    registry = peer("spandrel", "MAIN_REGISTRY")
    extra = peer("spandrel_extra_arches", "EXTRA_REGISTRY")
    registry.add(*extra, ignore_duplicates=True)
    return ours, registry.load(ours.published_state_dict()).model


@torch.no_grad()
def _randomise(network: nn.Module) -> None:
    """Randomises residual scales, norms and statistics, whose initial zeros and ones would hide parts."""
    for name, parameter in network.named_parameters():
        if name.endswith(("beta", "gamma")):
            nn.init.normal_(parameter, std=0.1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.8, 1.2)


def prepare(name: str, side: str, device: str, part: str, threads: int) -> Prepared:
    """A training step or an inference of one side; an inference's output is sent back."""
    torch.set_num_threads(threads)
    ours, theirs = networks(CASES[name])
    make = _step if part == "training step" else _inference
    call = make(CASES[name], ours, None if side == OURS else theirs, device)
    first = call()
    return call, first.cpu().numpy() if isinstance(first, Tensor) else None


def measure(name: str, options: Namespace) -> list[Row]:
    """Prints the tables of one network, and returns the rows with a target. Each table has its own processes,
    because after training in the same process an inference gets fresh memory at less cost than for users."""
    case, rows = CASES[name], []
    for threads in options.threads:
        for part, target in case.parts(options.parts):
            with ExitStack() as stack:
                sides = {
                    side: stack.enter_context(
                        Side(prepare, name, side, options.device, kept=side != THEIRS, device=options.device)
                    )
                    for side in (THEIRS, KEPT, OURS)
                }
                outputs = {side: process.prepare(part, threads) for side, process in sides.items()}
                times = in_turns(sides, options.rounds)
            size = f"{case.batch}x{case.patch}²" if part == "training step" else f"{case.side}²"
            title = f"{part}, {size}, {machine(options.device, threads)}"
            comparison(title, times, reference=THEIRS, against=OURS)
            if part == "inference":
                _check_equal(case, outputs)
            if target is not None:
                faster = ratio(times[THEIRS], times[OURS])
                text = f"{faster:.2f} x ({ratio(times[THEIRS], times[OURS], 'processor'):.2f} processor)"
                rows.append(Row(_what(name, part, threads), text, f">= {target} x", faster >= target))
    return rows


def _check_equal(case: Case, outputs: dict[str, Any]) -> None:
    difference = float(abs(outputs[OURS] - outputs[THEIRS]).max())
    console().print(f"  largest difference of the outputs: {difference:.1e}")
    if not difference <= LARGEST_DIFFERENCE:
        raise SystemExit(f"{case.title}: outputs differ by {difference:.1e}, so times cannot be compared")


def _photos(batch: int, side: int, device: str) -> Tensor:
    return torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(side)).to(device)


def _step(case: Case, ours: Network, theirs: nn.Module | None, device: str) -> Callable[[], object]:
    """A training step of spandrel's network, or of ours if `theirs` is None."""
    layout = torch.channels_last if theirs is None else torch.contiguous_format
    network: nn.Module = ours if theirs is None else theirs.requires_grad_(True)
    network = network.to(device=device, memory_format=layout)  # type: ignore[call-overload]
    x = _photos(case.batch, case.patch, device)
    clean = _photos(case.batch, case.patch * ours.scale, device)
    network.train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-6, fused=True)

    def step() -> None:
        optimiser.zero_grad()
        restored = network(x.clone(memory_format=layout))  # spandrel's RCAN writes to its input
        F.l1_loss(restored, clean).backward()
        optimiser.step()

    return step


def _inference(case: Case, ours: Network, theirs: nn.Module | None, device: str) -> Callable[[], Tensor]:
    assert case.side is not None
    x = _photos(1, case.side, device)
    if theirs is None:
        restorer = Restorer(network=ours, device=device)
        return lambda: restorer(x)
    network = theirs.to(device).eval()

    @torch.no_grad()
    def reference() -> Tensor:
        restored: Tensor = network(x.clone())
        return restored.clamp(0, 1)

    return reference


if __name__ == "__main__":
    main()
