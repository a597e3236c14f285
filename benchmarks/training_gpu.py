"""Training on a GPU: against spandrel in its own mode, against the hardware's limit, and shares of a step.

    python benchmarks/training_gpu.py [--only nafnet,dncnn] [--rounds 20] [--shares] [--quick] [--tiny]

restora's step is that of `trainer=gpu`: bfloat16 autocast, channels_last, compiled; spandrel's is float32 in
torch's default memory format, uncompiled, as its networks come. The limit is the sum over layers of the
larger of arithmetic / peak and traffic / bandwidth, both peaks measured here; traffic counts each layer's
input and output once forward, and its input and both gradients once backward. Shares are those of `restora
bench`, and those of the degradation again where its batches are replayed (data/replayed.py). Without a GPU
every row says so; --tiny runs the same code with small sizes on a CPU, to see that it works, and gives no
figures.
"""

import copy
import logging
import os
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from crops import mosaics
from networks import CASES, networks
from peers import PeerMissingError
from timing import (
    Row,
    Times,
    console,
    interleaved,
    machine,
    milliseconds,
    not_measured,
    parser,
    print_table,
    save_rows,
)
from timing import ratio as times_faster
from torch import Tensor, nn

from restora.config import build, compose
from restora.data.replayed import SWITCH
from restora.families.compiling import compile_in_place
from restora.networks.base import Network
from restora.training.measuring import Measurement

COMPARED = ("nafnet", "restormer", "dncnn", "swinir", "rcan", "rrdbnet")
FASTER, LIMIT, NAFNET_MS = 2.0, 2.0, 20.0
SHARES = {
    "degradation, second order": (
        "degradation",
        0.05,
        [
            "network=rrdbnet",
            "degradation=real_esrgan_x4",
            "family=gan",
            "data.patch_size=256",
            "data.batch_size=16",
        ],
    ),
    "degradation, noise": (
        "degradation",
        0.01,
        ["network=nafnet", "family=nafnet", "data.patch_size=256", "data.batch_size=32"],
    ),
}
PHOTOS = ["network=nafnet", "family=nafnet", "data=folder", "data.patch_size=256", "data.batch_size=32"]
IDLE = 0.02


def main() -> None:
    options = _options()
    logging.getLogger("lightning").setLevel(logging.ERROR)
    if not options.tiny and not torch.cuda.is_available():
        console().print("not measured: no CUDA device")
        save_rows(not_measured(_targets(options), "no CUDA device"), options.rows)
        return
    console().print(machine(options.device))
    rows = [] if options.shares else [row for n in options.only for row in against_spandrel(n, options)]
    if not options.shares:
        rows += [near_the_limit(name, options) for name in ("dncnn_color", "unet")] + [nafnet_step(options)]
    rows += shares(options)
    if options.tiny:
        rows = not_measured([(row.what, row.target) for row in rows], "a tiny run, to see that it works")
    print_table("on a GPU", ["what", "measured", "target"], [[r.what, r.measured, r.target] for r in rows])
    save_rows(rows, options.rows)


def _options() -> Namespace:
    made = parser(__doc__)
    made.add_argument("--only", default=",".join(COMPARED), help="networks that are compared with spandrel")
    made.add_argument("--rounds", type=int, default=20)
    made.add_argument("--shares", action="store_true", help="only what else than the network takes time")
    made.add_argument("--tiny", action="store_true", help="small sizes on a CPU, uncompiled: no figures")
    options = made.parse_args()
    options.only = [name for name in options.only.split(",") if name]
    if unknown := set(options.only) - set(COMPARED):
        made.error(f"--only is of {', '.join(COMPARED)}, got {', '.join(sorted(unknown))}")
    options.device = "cpu" if options.tiny else "cuda"
    options.rounds = 1 if options.tiny else 5 if options.quick else options.rounds
    return options


def _targets(options: Namespace) -> list[tuple[str, str]]:
    parts = ("training step", "inference")
    return [
        *((f"GPU: {part}, {name}", f">= {FASTER:g} x spandrel") for name in options.only for part in parts),
        *((f"GPU: step of {name}", f"<= {LIMIT:g} x the limit") for name in ("dncnn_color", "unet")),
        ("GPU: step of NAFNet-32, 32x256²", f"<= {NAFNET_MS:g} ms"),
        *((f"GPU: share of {what}", f"<= {most:.0%}") for what, (_, most, _) in SHARES.items()),
        ("GPU: share of waiting for data", f"<= {IDLE:.0%}"),
    ]


# --- against spandrel


def against_spandrel(name: str, options: Namespace) -> list[Row]:
    """Step and inference of one network."""
    case = (
        replace(CASES[name], batch=1, patch=16, side=32) if options.tiny else replace(CASES[name], batch=16)
    )
    names = [(f"GPU: {part}, {name}", f">= {FASTER:g} x spandrel") for part in ("training step", "inference")]
    try:
        ours, theirs = networks(case)
    except PeerMissingError as error:
        console().print(str(error))
        return not_measured(names, "spandrel is not installed")
    ours, theirs = fast(ours, options), theirs.to(options.device)
    x, clean = _photos(case.batch, case.patch, options), _photos(case.batch, case.patch * ours.scale, options)
    photo = _photos(1, case.side, options)
    with_limits = (
        {"spandrel": training_step(theirs, x, clean), "restora": training_step(ours, x, clean, amp=True)},
        {"spandrel": inference(theirs, photo), "restora": inference(ours, photo, amp=True)},
    )
    rows = []
    for (what, target), ways in zip(names, with_limits, strict=True):
        taken = _timed(ways, options)
        faster = times_faster(taken["spandrel"], taken["restora"])
        rows.append(Row(what, f"{faster:.2f} x", target, faster >= FASTER))
    return rows


def fast(network: Network, options: Namespace) -> Network:
    """The network as `trainer=gpu` runs it."""
    network = network.to(device=options.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if not options.tiny and not compile_in_place(network, torch.device(options.device)):
        raise SystemExit("torch.compile does not work here: the log says why")
    return network


def _photos(batch: int, side: int, options: Namespace) -> Tensor:
    return torch.rand(batch, 3, side, side, device=options.device)


def _timed(ways: dict[str, Callable[[], object]], options: Namespace) -> dict[str, Times]:
    repeats = 1 if options.tiny else 5
    return interleaved(ways, rounds=options.rounds, device=options.device, repeats=repeats, warm_up=2)


def training_step(network: nn.Module, x: Tensor, clean: Tensor, *, amp: bool = False) -> Callable[[], None]:
    """A function for one step: forward, loss in float32, backward, optimiser."""
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-6, fused=True)
    layout = torch.channels_last if amp else torch.contiguous_format

    def step() -> None:
        network.train()
        optimiser.zero_grad()
        with torch.autocast(x.device.type, torch.bfloat16, enabled=amp):
            restored = network(x.clone(memory_format=layout))
        F.l1_loss(restored.float(), clean).backward()
        optimiser.step()

    return step


def inference(network: nn.Module, x: Tensor, *, amp: bool = False) -> Callable[[], Tensor]:
    layout = torch.channels_last if amp else torch.contiguous_format

    @torch.no_grad()
    def restore() -> Tensor:
        network.eval()
        with torch.autocast(x.device.type, torch.bfloat16, enabled=amp):
            restored: Tensor = network(x.clone(memory_format=layout))
        return restored.float().clamp(0, 1)

    return restore


# --- against the hardware


def near_the_limit(name: str, options: Namespace) -> Row:
    """The step time of a network of conf/network relative to the least time of its layers."""
    batch, side = (1, 32) if options.tiny else (32, 128)
    network: Network = build(compose("train", [f"network={name}"]).network, "network")
    x = torch.empty(batch, network.in_channels, side, side)
    layers = list(costs(network, x))
    network = fast(network, options)
    x, clean = _photos(batch, side, options), _photos(batch, side, options)
    taken = _timed({"restora": training_step(network, x, clean, amp=True)}, options)["restora"].median()
    flops, bandwidth = peaks(options)
    least = sum(max(work / flops, traffic / bandwidth) for work, traffic in layers)
    shown = f"{taken / least:.2f} x ({milliseconds(taken)} ms; limit {milliseconds(least)})"
    return Row(f"GPU: step of {name}", shown, f"<= {LIMIT:g} x the limit", taken / least <= LIMIT)


def costs(network: Network, x: Tensor) -> Iterator[tuple[float, float]]:
    """(operations, bytes moved) of each convolution and batch norm in a training step in bfloat16."""
    found: list[tuple[float, float]] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ends = inputs[0].numel() + output.numel()
        if isinstance(module, nn.BatchNorm2d):  # statistics, then the norm; the same backward
            found.append((0.0, 2.0 * (ends + inputs[0].numel() + ends + output.numel() + inputs[0].numel())))
            return
        assert isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
        places = inputs[0] if isinstance(module, nn.ConvTranspose2d) else output
        work = 2.0 * module.weight.numel() * places.shape[0] * places.shape[2] * places.shape[3]
        found.append((3 * work, 2.0 * (ends + ends + inputs[0].numel())))

    ghost = copy.deepcopy(network).to("meta")
    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d)
    for module in ghost.modules():
        if isinstance(module, kinds):
            module.register_forward_hook(note)
    ghost(x.to("meta"))
    return iter(found)


def peaks(options: Namespace) -> tuple[float, float]:
    """bfloat16 operations and bytes per second, measured: a large matrix product, and a copy."""
    side, length = (256, 2**20) if options.tiny else (8192, 2**30)
    a, b = (torch.randn(side, side, device=options.device, dtype=torch.bfloat16) for _ in range(2))
    source = torch.empty(length, device=options.device, dtype=torch.uint8)
    target = torch.empty_like(source)
    taken = _timed({"product": lambda: a @ b, "copy": lambda: target.copy_(source)}, options)
    return 2 * side**3 / taken["product"].median(), 2 * length / taken["copy"].median()


def nafnet_step(options: Namespace) -> Row:
    """The step of the paper's NAFNet of width 32, with a batch of 32x256x256 on one GPU."""
    batch, side = (1, 32) if options.tiny else (32, 256)
    network = fast(build(compose("train", ["network=nafnet"]).network, "network"), options)
    step = training_step(network, _photos(batch, side, options), _photos(batch, side, options), amp=True)
    taken = _timed({"restora": step}, options)["restora"]
    shown = f"{milliseconds(taken.median())} ms ({taken.spread()})"
    return Row(
        "GPU: step of NAFNet-32, 32x256²", shown, f"<= {NAFNET_MS:g} ms", 1e3 * taken.median() <= NAFNET_MS
    )


# --- what else takes time


def shares(options: Namespace) -> list[Row]:
    """The shares of a step for the degradation, and for waiting for photos of DIV2K's size from disk."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        jobs = {what: (part, most, words) for what, (part, most, words) in SHARES.items()}
        mosaics(folder / "photos")
        jobs["waiting for data"] = ("data", IDLE, [*PHOTOS, f"data.source.root={folder / 'photos'}"])
        for what, (part, most, words) in jobs.items():
            share = measured_share(part, [*words, f"data_dir={folder / 'data'}"], options)
            rows.append(Row(f"GPU: share of {what}", f"{share:.1%}", f"<= {most:.0%}", share <= most))
            console().print(f"{rows[-1].what}: {rows[-1].measured}")
        os.environ[SWITCH] = "1"
        for what, (part, _, words) in SHARES.items():
            share = measured_share(part, [*words, f"data_dir={folder / 'data'}"], options)
            console().print(f"GPU: share of {what}, by one launch: {share:.1%}")
        del os.environ[SWITCH]
    return rows


def measured_share(part: str, words: list[str], options: Namespace) -> float:
    """The share of one part of a training step, as `restora bench` measures it."""
    words = [*words, "trainer=gpu", "compile=true"]  # compiled without a trial of ways, as in the other rows
    if options.tiny:
        words = [*_tiny(words), "trainer=cpu"]
    config = compose("train", words)
    steps, warm_up = (2, 1) if options.tiny else (10, 5) if options.quick else (50, 10)
    with _quiet():
        (stage,) = Measurement(config, warm_up=warm_up, steps=steps).stages()
    return stage.shares[part]


def _tiny(words: list[str]) -> list[str]:
    small = {"network=rrdbnet": "network=rrdbnet_x4_small", "network=nafnet": "network=nafnet_small"}
    left_out = ("trainer=", "compile=", "data.patch_size=", "data.batch_size=")
    kept = [small.get(word, word) for word in words if not word.startswith(left_out)]
    return [*kept, "data.patch_size=32", "data.batch_size=2", "data.workers=0"]


@contextmanager
def _quiet() -> Iterator[None]:
    """Hides Lightning's start messages."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


if __name__ == "__main__":
    main()
