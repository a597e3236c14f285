"""`restora zoo`: lists the models that come with restora, with their figures, or measures those again."""

import argparse
import contextlib
import io
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restora.apps.parser import Parser
from restora.files import json_text, read_json
from restora.zoo.index import PREFIX, folder_of, names
from restora.zoo.references import CURVE_PHOTOS, CURVES, MEASURED, PSNR

if TYPE_CHECKING:
    from rich.console import Console

TOLERANCE = 0.01
"""Largest allowed difference in dB between a recorded figure and a new measurement."""


def parser() -> argparse.ArgumentParser:
    """The command line of `restora zoo`."""
    made = Parser(
        prog="restora zoo",
        description="List the models that come with restora. Each is zoo:NAME wherever a model is named: "
        "restora restore zoo:NAME photo.jpg out.jpg",
    )
    made.add_argument("--json", action="store_true", help="print JSON instead of a table")
    actions = made.add_subparsers(dest="action", metavar="[verify, ship]")
    verify = actions.add_parser(
        "verify", help="measure models on their test sets and compare with their figures"
    )
    verify.add_argument("names", metavar="NAME", nargs="*", help="models (default: all)")
    verify.add_argument(
        "--data-dir", metavar="DIR", help="folder that holds testsets/ (default: RESTORA_DATA, data)"
    )
    verify.add_argument(
        "--limit", type=int, metavar="PHOTOS", help="use the first photos only; then nothing is compared"
    )
    verify.add_argument("--write", action="store_true", help="keep the measured figures (in a checkout)")
    ship = actions.add_parser("ship", help="put a trained run among the models (in a checkout)")
    ship.add_argument("run", metavar="RUN", help="run folder")
    ship.add_argument("name", metavar="NAME", help="name of the model")
    ship.add_argument("--commit", help="commit of the sources, if the run recorded none")
    return made


def main(argv: Sequence[str]) -> int:
    """0; 1 if a measured figure differs from the recorded one by more than 0.01 dB, or none was measured."""
    options = parser().parse_args(argv)
    from rich.console import Console

    console = Console(highlight=False)
    if options.action == "verify":
        return _verify(options, console)
    if options.action == "ship":
        from restora.apps.zoo_ship import ship

        target = ship(options.run, options.name, commit=options.commit)
        console.print(f"{target}: measure it by `restora zoo verify {options.name} --write`", soft_wrap=True)
        return 0
    listed = [describe(name) for name in names()]
    if options.json:
        print(json_text(listed))
    else:
        _show(listed, console)
    return 0


def describe(name: str) -> dict[str, Any]:
    """The entry of a model in the list, as plain JSON values."""
    folder = folder_of(name)
    model = read_json(folder / "model.json")
    weights = folder / "weights.safetensors"
    return {
        "name": name,
        "source": f"{PREFIX}{name}",
        "task": model["task"],
        "network": model["network"]["name"],
        "scale": model["scale"],
        "channels": model["in_channels"],
        "conditioned": model["condition_channels"] > 0,
        "bytes": weights.stat().st_size,
        "degradation": model["degradation"],
        "training": model["metrics"].get("training") or {},
        "benchmarks": [
            row | {"references": PSNR.get(row["benchmark"], {})}
            for row in model["metrics"].get("benchmarks") or []
        ],
    }


def _show(listed: list[dict[str, Any]], console: "Console") -> None:
    from rich.table import Table

    for model in listed:
        colours = "colour" if model["channels"] == 3 else "grey"
        what = [model["task"].replace("_", "-"), colours, model["network"], f"{model['bytes'] / 1e6:.1f} MB"]
        console.print(f"[bold]{model['source']}[/bold]  {', '.join(what)}")
        table = Table(
            "",
            "degraded",
            "restored",
            "others, by their papers" if any(row["references"] for row in model["benchmarks"]) else "",
            box=None,
            pad_edge=False,
            padding=(0, 2, 0, 0),
        )
        for row in model["benchmarks"]:
            others = ", ".join(f"{name} {value:.2f}" for name, value in row["references"].items())
            table.add_row(
                f"  {row['benchmark']}", f"{row['input_psnr']:.2f}", f"{row['psnr']:.2f} dB", others
            )
        if model["benchmarks"]:
            console.print(table)
    console.print("\n`restora restore zoo:NAME PHOTO OUT` uses one; `restora zoo verify NAME` measures it.")


def _verify(options: argparse.Namespace, console: "Console") -> int:
    """Measures the figures and prints each beside the recorded one; returns the exit status."""
    from restora.apps.zoo_ship import missed, with_figures

    differing = compared = measured = 0
    missing: dict[str, list[str]] = {}
    for name in options.names or names():
        folder = folder_of(name)
        recorded = {row["benchmark"]: row for row in describe(name)["benchmarks"]}
        kept: list[dict[str, Any]] = []
        for benchmark in MEASURED.get(folder.name, tuple(recorded)):
            try:
                row = measure(folder, benchmark, data_dir=options.data_dir, limit=options.limit)
            except ValueError as error:
                missing.setdefault(str(error), []).append(f"{folder.name} {benchmark}")
                kept += [recorded[benchmark]] if benchmark in recorded else []
                continue
            kept.append(row)
            measured += 1
            line = f"{folder.name} {benchmark}: {row['psnr']:.4f} dB"
            if benchmark in recorded and options.limit is None:
                difference = row["psnr"] - recorded[benchmark]["psnr"]
                compared += 1
                differing += abs(difference) > TOLERANCE
                line += f", recorded {recorded[benchmark]['psnr']:.4f} ({difference:+.4f})"
            if options.limit is not None:
                line += f" on the first photos ({options.limit}), not compared"
            reference = missed(benchmark, row["psnr"]) if options.limit is None else None
            console.print(f"{line}{f', {reference}' if reference else ''}", soft_wrap=True)
        if options.write and kept and options.limit is None:
            with_figures(folder, kept, measure_curve(folder, data_dir=options.data_dir))
            compared += 1
    for reason, figures in missing.items():
        line = f"not measured ({len(figures)}): {', '.join(figures)}: {reason}"
        console.print(line, markup=False, soft_wrap=True)
    if missing and options.data_dir is None:
        console.print("--data-dir DIR names the folder that holds testsets/")
    return 1 if differing or not (compared or (options.limit and measured)) else 0


def measure(
    folder: Path, benchmark: str, *, data_dir: str | None = None, limit: int | None = None
) -> dict[str, Any]:
    """The figures of a model folder on a ready benchmark. Raises ValueError if the test set is missing."""
    import time

    words = [] if limit is None else [f"benchmark.limit={limit}"]
    (summary,) = _evaluated(folder, benchmark, data_dir, words).values()
    return {
        "benchmark": benchmark,
        "psnr": round(summary["psnr"], 4),
        "ssim": round(summary["ssim"], 4),
        "input_psnr": round(summary["input"]["psnr"], 4),
        "photos": summary["images"],
        "date": time.strftime("%Y-%m-%d"),
    }


def measure_curve(folder: Path, *, data_dir: str | None = None) -> list[dict[str, float]] | None:
    """The points of the model's severity curve in the references; None if they name none."""
    if folder.name not in CURVES:
        return None
    benchmark, severities = CURVES[folder.name]
    listed = ",".join(map(str, severities))
    found = _evaluated(
        folder, benchmark, data_dir, [f"severities={listed}", f"benchmark.limit={CURVE_PHOTOS}"]
    )
    points = [
        {
            "severity": float(place.partition("=")[2]),
            "psnr": round(summary["psnr"], 2),
            "input_psnr": round(summary["input"]["psnr"], 2),
        }
        for place, summary in found.items()
    ]
    return sorted(points, key=lambda point: point["severity"])


def _evaluated(folder: Path, benchmark: str, data_dir: str | None, words: list[str]) -> dict[str, Any]:
    """The summaries that `restora evaluate` writes, by the folder of each."""
    from restora.apps.evaluate import main as evaluate

    with tempfile.TemporaryDirectory(prefix="restora-zoo-") as output:
        where = [] if data_dir is None else [f"data_dir={data_dir}"]
        with contextlib.redirect_stdout(io.StringIO()):
            evaluate([f"model={folder}", f"benchmark={benchmark}", f"output={output}", *where, *words])
        return {
            path.parent.name: json.loads(path.read_text(encoding="utf-8"))
            for path in Path(output).rglob("summary.json")
        }
