"""Steps and inference beside other busy programs, and alone: how long OpenMP's threads spin while they wait.

    python benchmarks/busy.py [--spin default,1000] [--seconds 6] [--rounds 3] [--quick]

Milliseconds, medians of rounds, all cores as threads. A process of its own for each value of GOMP_SPINCOUNT,
as libgomp reads it once; `default` leaves it unset, `passive` is OMP_WAIT_POLICY=PASSIVE. Each is measured
alone and with one busy process per core beside it. `--spin default,passive,300,1000,3000,10000,30000` is the
whole table. Targets: busy at most 4 times idle, idle at most 5% over `default` in the geometric mean. Wants
an idle machine.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from timing import Row, parser, print_table, save_rows

from restora.files import json_text

CASES = ("NAFNet step", "DnCNN step", "NAFNet", "Restormer")
OURS, TIMES, COST = "1000", 4.0, 1.05


def main() -> None:
    made = parser(__doc__)
    made.add_argument(
        "--spin", default=f"default,{OURS}", help="values of GOMP_SPINCOUNT, default or passive"
    )
    made.add_argument("--seconds", type=float, default=6.0, help="for each case")
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--measure", action="store_true", help="prints the cases of this process")
    options = made.parse_args()
    seconds = 2.0 if options.quick else options.seconds
    if options.measure:
        sys.stdout.write(json_text(measured(seconds)))
        return
    taken = defaultdict[tuple[str, str], list[dict[str, float]]](list)
    for _ in range(1 if options.quick else options.rounds):  # the machine's speed varies over minutes
        for state in ("idle", "busy"):
            for spin in options.spin.split(","):
                with busy_processes(0 if state == "idle" else os.cpu_count() or 1):
                    taken[spin, state].append(child(spin, seconds))
    found = {
        place: {case: statistics.median(one[case] for one in several) for case in CASES}
        for place, several in taken.items()
    }
    lines = [[*place, *(f"{times[case]:.0f}" for case in CASES)] for place, times in sorted(found.items())]
    print_table("Beside busy programs, ms", ["spin count", "machine", *CASES], lines)
    save_rows(rows(found), options.rows)


def rows(found: dict[tuple[str, str], dict[str, float]]) -> list[Row]:
    """The rows of targets for the value that restora sets; none if it was not measured."""
    if (OURS, "idle") not in found:
        return []
    idle, busy = found[OURS, "idle"], found[OURS, "busy"]
    made = []
    for case in CASES:
        times = busy[case] / idle[case]
        made.append(
            Row(
                f"{case}, one busy process per core",
                f"{times:.1f} times idle ({idle[case]:.0f} and {busy[case]:.0f} ms)",
                f"at most {TIMES:g}",
                times <= TIMES,
            )
        )
    if ("default", "idle") in found:
        cost = statistics.geometric_mean(idle[case] / found["default", "idle"][case] for case in CASES)
        made.append(
            Row(
                "spin count 1,000, idle machine",
                f"{cost:.3f} of the default",
                f"at most {COST:g}",
                cost <= COST,
            )
        )
    return made


def child(spin: str, seconds: float) -> dict[str, float]:
    environment = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    environment["OMP_NUM_THREADS"] = str(os.cpu_count() or 1)
    if spin == "passive":
        environment["OMP_WAIT_POLICY"] = "PASSIVE"
    elif spin != "default":
        environment["GOMP_SPINCOUNT"] = spin
    words = [sys.executable, __file__, "--measure", "--seconds", str(seconds)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Runs `count` processes that compute without end."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def measured(seconds: float) -> dict[str, float]:
    """Median milliseconds of each case in this process."""
    import torch

    from restora.networks.dncnn import DnCNN
    from restora.networks.nafnet import NAFNet
    from restora.networks.restormer import Restormer

    torch.manual_seed(0)
    nafnet = NAFNet(width=16, encoder_blocks=[1, 1, 1, 4], middle_blocks=1, decoder_blocks=[1, 1, 1, 1])
    dncnn = DnCNN(in_channels=3)
    restormer = Restormer(channels=16, blocks=[1, 1, 1, 2], refinement_blocks=1)

    def step(network: torch.nn.Module, *shape: int) -> Callable[[], object]:
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, fused=True)
        photo = torch.rand(*shape)

        def made() -> None:
            optimizer.zero_grad()
            (network(photo) - photo).abs().mean().backward()
            optimizer.step()

        return made

    def inference(network: torch.nn.Module, side: int) -> Callable[[], object]:
        photo = torch.rand(1, 3, side, side)

        def made() -> None:
            with torch.inference_mode():
                network(photo)

        return made

    work = (
        step(nafnet, 4, 3, 64, 64),
        step(dncnn, 8, 3, 48, 48),
        inference(nafnet, 256),
        inference(restormer, 128),
    )
    return {case: _median_ms(call, seconds) for case, call in zip(CASES, work, strict=True)}


def _median_ms(call: Callable[[], object], seconds: float) -> float:
    call()
    times: list[float] = []
    until = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < until:
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return 1000 * statistics.median(times)


if __name__ == "__main__":
    main()
