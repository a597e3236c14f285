"""PSNR against compute: what `experiments/scaling/run.sh OUT` trained, as a table, a fitted line and a plot.

    python benchmarks/scaling.py OUT [--kept FILE] [--plot docs/scaling.png]
    python benchmarks/scaling.py --table

Each run of OUT becomes a line of `scaling.csv`, kept beside the recipe with those of earlier calls: its cost,
and its PSNR on the test set. Its minutes are its steps times the step time in the short run of the same
network in OUT/alone, which had a core for itself, so that other load of the machine does not count. The line
is a power law of the error (root mean square on the 8-bit scale, from the PSNR) over minutes, straight in a
log-log plot, and fitted by least squares to the runs that no other run beats in about the same time. The plot
is drawn by a headless Chromium (the extra "test", then `playwright install chromium`).
"""

import argparse
import csv
import itertools
import math
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from restora.files import read_json
from restora.zoo.references import PSNR

_ROOT = Path(__file__).parents[1]
_COLOURS = {"drunet": "#1f6fb2", "nafnet": "#c8511b"}
_MARKS = {"small": "circle", "medium": "square", "large": "diamond"}
_LEVELS = {f"{name} {psnr}": psnr for name, psnr in PSNR["cbsd68_sigma25"].items()}
_SLACK = 1.25
"""A run with a higher PSNR beats another if it takes at most this many times as long."""


@dataclass(frozen=True)
class Run:
    """The cost and result of one training; `macs` are those of all its steps, forward and backward.

    `minutes` are for one core without other load.
    """

    network: str
    size: str
    parameters: int
    steps: int
    macs: float
    minutes: float
    psnr: float
    cpu: str
    commit: str
    date: str


@dataclass(frozen=True)
class Line:
    """PSNR = `first` + `decade` * log10(minutes); the fitted runs deviate by `spread` dB (RMS)."""

    first: float
    decade: float
    spread: float

    def psnr(self, minutes: float) -> float:
        return self.first + self.decade * math.log10(minutes)


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("out", type=Path, nargs="?", help="folder of run.sh")
    made.add_argument("--kept", type=Path, default=_ROOT / "experiments" / "scaling" / "scaling.csv")
    made.add_argument("--plot", type=Path, help="a PNG")
    made.add_argument("--table", action="store_true", help="the table of what is kept, and nothing else")
    options = made.parse_args()
    if options.out is None and not options.table:
        made.error("OUT is the folder that run.sh wrote")
    if options.out is not None:
        known = read(options.kept) if options.kept.exists() else []
        write(joined(known, collect(options.out)), options.kept)
    runs = read(options.kept)
    for text in table(runs):
        print(text)
    if options.plot is not None:
        draw(runs, options.plot)


def collect(out: Path) -> Iterator[Run]:
    """The finished and evaluated runs of a folder, of networks that were timed alone."""
    alone = {}
    for path in out.glob("alone/*/run.json"):
        record = read_json(path)
        named = next(word for word in record["overrides"] if word.startswith("experiments="))
        alone[named.rpartition("/")[2]] = record["cost"]["step_ms"]
    for path in sorted(out.glob("runs/*/*/run.json")):
        record = read_json(path)
        summary = out / "scores" / path.parts[-3] / path.parts[-2] / "summary.json"
        if record["status"] != "finished" or not summary.exists() or path.parts[-3] not in alone:
            continue
        network, _, size = path.parts[-3].partition("_")
        cost = record["cost"]
        pixels = cost["samples"] * record["config"]["data"]["patch_size"] ** 2
        yield Run(
            network=network,
            size=size,
            parameters=record["parameters"],
            steps=cost["steps"],
            macs=3 * record["macs_256"] / 256**2 * pixels,  # the backward pass needs twice as many
            minutes=round(cost["steps"] * alone[path.parts[-3]] / 60e3, 2),
            psnr=round(read_json(summary)["psnr"], 4),
            cpu=record["machine"]["cpu"],
            commit=str(record["git"]["commit"])[:7],
            date=record["finished"][:10],
        )


def joined(known: Iterable[Run], new: Iterable[Run]) -> list[Run]:
    """All runs; a new run replaces a known one of the same network, size and steps."""
    by = {(run.network, run.size, run.steps): run for run in [*known, *new]}
    return sorted(by.values(), key=lambda run: (run.network, run.parameters, run.steps))


def write(runs: Iterable[Run], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Run)], lineterminator="\n")
        writer.writeheader()
        writer.writerows({**asdict(run), "macs": f"{run.macs:.4g}"} for run in runs)


def read(path: Path) -> list[Run]:
    kinds = {field.name: field.type for field in fields(Run)}
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    return [Run(**{name: kinds[name](value) for name, value in line.items()}) for line in lines]  # type: ignore[operator]


def best(runs: Sequence[Run]) -> list[Run]:
    """The runs that no other run beats in at most a quarter more time, by time."""

    def beaten(run: Run) -> bool:
        return any(other.psnr > run.psnr and other.minutes <= _SLACK * run.minutes for other in runs)

    return sorted((run for run in runs if not beaten(run)), key=lambda run: run.minutes)


def fit(runs: Sequence[Run]) -> Line:
    """Fits a line by least squares; needs two runs of different lengths."""
    x = np.log10([run.minutes for run in runs])
    y = np.array([run.psnr for run in runs])
    decade, first = np.polyfit(x, y, 1)
    spread = float(np.sqrt(np.mean((y - first - decade * x) ** 2)))
    return Line(first=float(first), decade=float(decade), spread=spread)


def table(runs: Sequence[Run]) -> Iterator[str]:
    """The table in Markdown, by network, size and length, and the fitted lines in words."""
    yield "| network | parameters | steps | T MACs | minutes | PSNR | |"
    yield "|---|---:|---:|---:|---:|---:|---|"
    front = best(runs)
    for run in sorted(runs, key=lambda run: (run.network, run.parameters, run.steps)):
        cells = (f"{run.parameters / 1e3:,.0f} k", f"{run.steps:,}", f"{run.macs / 1e12:,.0f}")
        mark = "best for its time" if run in front else ""
        yield f"| {run.network} | {' | '.join(cells)} | {run.minutes:.1f} | {run.psnr:.2f} | {mark} |"
    yield ""
    for name, own in [("all", list(runs)), *_by_network(runs)]:
        points = best(own)
        if len(points) > 1:
            line = fit(points)
            yield (
                f"{name}: {line.first:.2f} dB after a minute, {line.decade:+.2f} dB for ten times as many"
                f" ({line.decade * math.log10(2):+.2f} for twice), {len(points)} runs, ±{line.spread:.2f}"
            )


def _by_network(runs: Sequence[Run]) -> list[tuple[str, list[Run]]]:
    ordered = sorted(runs, key=lambda run: run.network)
    return [(name, list(own)) for name, own in itertools.groupby(ordered, lambda run: run.network)]


def draw(runs: Sequence[Run], path: Path) -> None:
    """Draws the plot, a PNG of 900 x 560 pixels."""
    import plotly.graph_objects as go
    from playwright.sync_api import sync_playwright

    figure = go.Figure()
    for network, size in sorted({(run.network, run.size) for run in runs}):
        own = sorted(
            (run for run in runs if (run.network, run.size) == (network, size)), key=lambda r: r.steps
        )
        figure.add_scatter(
            x=[run.minutes for run in own], y=[_error(run.psnr) for run in own], mode="lines+markers",
            name=f"{network} {own[0].parameters / 1e6:.2f} M", opacity=0.85,
            line={"color": _COLOURS.get(network, "#555"), "width": 1},
            marker={"symbol": _MARKS.get(size, "x"), "size": 9},
        )  # fmt: skip
    front = best(runs)
    line = fit(front)
    span = (front[0].minutes, 60.0)
    figure.add_scatter(
        x=span, y=[_error(line.psnr(minutes)) for minutes in span], mode="lines",
        name=f"{line.decade:+.2f} dB a decade", line={"color": "#222", "dash": "dash"},
    )  # fmt: skip
    first = min(run.minutes for run in runs)
    for name, psnr in _LEVELS.items():
        figure.add_scatter(
            x=[first, 60.0], y=[_error(psnr)] * 2, mode="lines+text",
            text=[name, ""], textposition="top right",
            line={"color": "#999", "dash": "dot", "width": 1}, showlegend=False,
        )  # fmt: skip
    low, high = (round(function(run.psnr for run in runs) * 2) / 2 for function in (min, max))
    high = max(high, max(_LEVELS.values()), line.psnr(60.0)) + 0.2
    ticks = np.arange(low, high, 0.5)
    figure.update_xaxes(
        type="log",
        title="minutes of one core",
        tickvals=[0.5, 1, 2, 5, 10, 20, 60],
        ticktext=["½", "1", "2", "5", "10", "20", "60"],
    )
    figure.update_yaxes(
        type="log", title="error on CBSD68, σ 25 (8-bit levels)", tickvals=[_error(psnr) for psnr in ticks],
        ticktext=[f"{_error(psnr):.2f} · {psnr:.1f} dB" for psnr in ticks],
        range=[math.log10(_error(high)), math.log10(_error(low - 0.2))],
    )  # fmt: skip
    figure.update_layout(
        template="plotly_white", width=900, height=560, margin={"l": 130, "r": 20, "t": 20, "b": 60},
        legend={"x": 0.99, "xanchor": "right", "y": 0.98},
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as started:
        page = Path(folder) / "plot.html"
        figure.write_html(page, include_plotlyjs="inline", config={"displayModeBar": False})
        system = shutil.which("chromium")
        browser = started.chromium.launch(executable_path=system, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 900, "height": 560})
        opened.goto(page.as_uri())
        opened.wait_for_selector(".main-svg")
        path.parent.mkdir(parents=True, exist_ok=True)
        opened.screenshot(path=path)
        browser.close()


def _error(psnr: float) -> float:
    """The root of the mean squared error on the 8-bit scale."""
    return 255 * 10 ** (-psnr / 20)


if __name__ == "__main__":
    main()
