"""Training steps on a GPU in several ways, one row for each as soon as it is measured.

    python benchmarks/gpu.py [--only nafnet,dncnn] [--rounds 10] [--until TIME] [--traces FOLDER]
        [--rows-file FILE] [--tiny]

The ways are eager, compiled and as one CUDA graph, in float32 and bfloat16, with and without the fused
kernels, of restora's and spandrel's networks. Profiles show where the time goes, and the hardware's limits
are measured too. Batches are the papers'. Ways without compiling come first, for all networks, then the
compiled ways, the most important first. A way that fails or takes too long gets a row that says so. Rows that
are in the rows file already are not measured again, so that the same command continues. `--tiny` runs the
same code with small sizes on a CPU, as a test, and gives no figures.
"""

import os
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from networks import CASES, networks, own_network
from peers import PeerMissingError
from timing import console, interleaved, machine, milliseconds, parser
from torch import nn
from torch.autograd import DeviceType
from training_gpu import peaks, training_step

from restora.families.compiling import compile_in_place
from restora.kernels import SWITCH

BATCHES = {
    "nafnet": (32, 256),
    "restormer": (8, 128),
    "dncnn": (128, 40),
    "swinir": (8, 64),
    "rcan": (16, 48),
}
FULL = {"nafnet": {}, "restormer": {}, "dncnn": {"in_channels": 3, "depth": 17}}
"""Arguments of the paper's network, if benchmarks/networks.py measures a smaller one."""
EAGER = {
    "restora bf16 eager": ("ours", True, None, "0"),
    "restora float32 eager": ("ours", False, None, "0"),
    "spandrel float32 eager": ("theirs", False, None, "0"),
    "spandrel bf16 eager": ("theirs", True, None, "0"),
    "restora bf16 eager, kernels": ("ours", True, None, "1"),
}
COMPILED = {
    "restora bf16 one graph": ("ours", True, "reduce-overhead", "0"),
    "restora bf16 compiled": ("ours", True, True, "0"),
    "spandrel bf16 compiled": ("theirs", True, "default", "0"),
    "restora bf16 one graph, kernels": ("ours", True, "reduce-overhead", "1"),
    "spandrel bf16 one graph": ("theirs", True, "reduce-overhead", "0"),
    "restora float32 compiled": ("ours", False, True, "0"),
    "restora float32 one graph": ("ours", False, "reduce-overhead", "0"),
    "spandrel float32 compiled": ("theirs", False, "default", "0"),
    "spandrel float32 one graph": ("theirs", False, "reduce-overhead", "0"),
}
WAYS = EAGER | COMPILED
"""The package of the network, whether autocast is on, how it is compiled, and the fused kernels' switch."""
WITH_KERNELS = ("nafnet", "restormer")
AT_MOST = {"eager": 40, "compiled": 150}
"""Seconds for a row, compiling included."""
LARGEST = 5


def main() -> None:
    options = _options()
    if options.way:
        console().print(one(options.only, options.way, options), markup=False)
        return
    if not options.tiny and not torch.cuda.is_available():
        sys.exit("not measured: no CUDA device")
    flops, bandwidth = peaks(options)
    say(
        f"{machine(options.device)}: {flops / 1e12:.0f} TFLOP/s in bf16, {bandwidth / 1e12:.2f} TB/s", options
    )
    for ways, most in ((EAGER, AT_MOST["eager"]), (COMPILED, AT_MOST["compiled"])):
        for way in ways:
            for name in options.only.split(","):
                has_kernels = name in WITH_KERNELS or WAYS[way][3] == "0"
                if has_kernels and f"{name}, {way}: " not in measured(options):
                    row(name, way, most, options)
    if time.time() > options.until - LEAST:
        sys.exit("the time is over: the same command measures what is left")


def measured(options: Namespace) -> str:
    """The rows of an earlier run, without those that were out of time."""
    if options.rows_file is None or not options.rows_file.exists():
        return ""
    kept = options.rows_file.read_text().splitlines()
    return "\n".join(line for line in kept if not line.endswith(LATE))


LATE, LEAST = "not measured, the time is over", 5


def row(name: str, way: str, most: float, options: Namespace) -> None:
    """Measures one way in a separate process, so that its failure does not affect the others.

    A way that `--until` cuts short is measured by the next run. A tiny run, which compiles nothing, uses one
    process for all, because starting them would take most time.
    """
    seconds = min(most, options.until - time.time())
    if seconds < LEAST:
        say(f"{name}, {way}: {LATE}", options)
        return
    started = time.monotonic()
    if options.tiny:
        os.environ[SWITCH] = WAYS[way][3]
        found = one(name, way, options)
        say(f"{name}, {way}: {found} [{time.monotonic() - started:.0f} s]", options)
        return
    words = [sys.executable, __file__, "--only", name, "--way", way, "--rounds", str(options.rounds)]
    words += [] if options.traces is None else ["--traces", str(options.traces)]
    try:
        done = subprocess.run(
            words,
            env={**os.environ, SWITCH: WAYS[way][3]},
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )
        lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
        found = lines[-1] if lines else "no answer"
    except subprocess.TimeoutExpired:
        found = LATE if seconds < most else f"takes more than {most:.0f} s to start, compile and measure"
    taken = "" if found == LATE else f" [{time.monotonic() - started:.0f} s]"
    say(f"{name}, {way}: {found}{taken}", options)


def _options() -> Namespace:
    made = parser(__doc__)
    made.add_argument("--only", default=",".join(BATCHES))
    made.add_argument("--way", choices=WAYS, help="measure this one way, in this process")
    made.add_argument("--rounds", type=int, default=10)
    made.add_argument("--until", type=float, default=1e12, help="seconds since 1970: no row goes on then")
    made.add_argument("--traces", type=Path, help="also write a profile of each way there")
    made.add_argument("--rows-file", type=Path, help="also add each row to this file as it comes")
    made.add_argument("--tiny", action="store_true")
    options = made.parse_args()
    if unknown := set(options.only.split(",")) - set(BATCHES):
        made.error(f"--only is of {', '.join(BATCHES)}, got {', '.join(sorted(unknown))}")
    options.device = "cpu" if options.tiny else "cuda"
    options.rounds = 1 if options.tiny else options.rounds
    return options


def say(row: str, options: Namespace) -> None:
    console().print(row, markup=False)
    if options.rows_file is not None:
        with options.rows_file.open("a") as file:
            file.write(row + "\n")


def one(name: str, way: str, options: Namespace) -> str:
    """The milliseconds of a training step of one way; writes its profile."""
    whose, amp, mode, _ = WAYS[way]
    case = CASES[name]
    case = type(case)(
        case.title, case.network, case.arguments if options.tiny else FULL.get(name, case.arguments)
    )
    ours = own_network(case)
    network: nn.Module = ours
    if whose == "theirs":
        try:
            network = networks(case)[1].requires_grad_(True)
        except PeerMissingError as error:
            return str(error)
    batch, side = (1, 16) if options.tiny else BATCHES[name]
    network = network.to(options.device)
    if whose == "ours":
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if mode is not None and not options.tiny:
        if whose == "theirs":
            network = torch.compile(network, dynamic=False, mode=mode)
        elif not compile_in_place(network, torch.device(options.device), mode):
            raise SystemExit("torch.compile does not work here: the log says why")
    x = torch.rand(batch, 3, side, side, device=options.device)
    clean = torch.rand(batch, 3, side * ours.scale, side * ours.scale, device=options.device)
    step = training_step(network, x, clean, amp=amp)
    taken = interleaved({way: step}, rounds=options.rounds, device=options.device, repeats=3, warm_up=3)[way]
    memory = torch.cuda.max_memory_allocated() / 2**30 if x.is_cuda else 0.0
    busy = profiled(step, name, way, options)
    if options.tiny:
        return "works; a tiny run has no figures"
    return f"{milliseconds(taken.median())} ms ({taken.spread()}), {memory:.1f} GiB; {busy}"


def profiled(step: Callable[[], None], name: str, way: str, options: Namespace) -> str:
    """The device's busy time in a step, and its largest kernels; the trace goes to a file."""
    kinds = [torch.profiler.ProfilerActivity.CPU]
    kinds += [] if options.tiny else [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=kinds) as profile:
        step()
        if options.device == "cuda":
            torch.cuda.synchronize()
    if options.traces is not None:
        options.traces.mkdir(parents=True, exist_ok=True)
        profile.export_chrome_trace(str(options.traces / f"{name} {way}.json".replace(" ", "_")))
    events = sorted(filter(is_of_the_device, profile.key_averages()), key=lambda e: -e.self_device_time_total)
    total = sum(event.self_device_time_total for event in events) / 1e3
    largest = ", ".join(
        f"{e.key[:40]} {e.self_device_time_total / 1e3:.1f} ms ({e.count}x)" for e in events[:LARGEST]
    )
    return f"device busy {total:.1f} ms: {largest}"


def is_of_the_device(event: Any) -> bool:
    """Whether an event is a kernel or a copy.

    Calls of the host, and annotations, have the time of their kernels a second time.
    """
    return event.device_type != DeviceType.CPU and not event.is_user_annotation


if __name__ == "__main__":
    main()
