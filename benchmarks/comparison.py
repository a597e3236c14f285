"""The networks of `experiments/comparison`, each for the steps that its recipe says, on test sets: one table.

    python benchmarks/comparison.py OUT [--task denoise] [--networks drunet,nafnet] [--seeds 1,2,3]
    python benchmarks/comparison.py --table

Trains by one sweep for each seed, evaluates, and has the first seed of each network exported to time it. What
a run gave goes to two files (`--kept`, by default beside the recipes) as soon as it is known: `runs.csv`, a
line for each run, and `photos.csv`, one for each photo. Runs that are there already are not made again, so
the table grows over several sittings and machines: budgets are steps, which are the same everywhere. Runs in
OUT go on where they stopped. Ranks and intervals are over the photos of the first test set, and over seeds.
"""

import argparse
import csv
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from restora.apps.experiments import experiments
from restora.evaluation.results import read_result
from restora.evaluation.statistics import Scores, leaderboard
from restora.files import read_json

_EXPERIMENTS = Path(__file__).parents[1] / "experiments" / "comparison"
_FORMATS = ("safetensors", "onnx", "openvino")
"""Formats that are timed, in the order of the columns."""
_BEST = ("nafnet", "drunet", "unet", "cvt", "attention_unet", "rednet")
"""The best networks of denoising after five minutes."""
Line = dict[str, str]


@dataclass(frozen=True)
class Task:
    """Overrides of `restora train` for all networks and for some, and of `restora evaluate` by test set.

    `networks` are the default ones (none: all), trained for `share` of the steps of their recipes.
    """

    tests: dict[str, tuple[str, ...]]
    train: tuple[str, ...] = ()
    own: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    networks: tuple[str, ...] = _BEST
    share: float = 0.4


def _degraded(testset: str, degradation: str, *words: str) -> tuple[str, ...]:
    by = f"degradation@benchmark.degradation={degradation}"
    return ("benchmark=degraded", f"benchmark/testset={testset}", by, *words)


_MUON = ("family.optimizer._target_=muon", "family.optimizer.lr=0.005")
"""With AdamW the output hardly differs from the input after so few steps."""
_BLIND: Mapping[str, tuple[str, ...]] = {"drunet": ("network.condition_channels=0",)}
_MASKED: Mapping[str, tuple[str, ...]] = dict.fromkeys(
    ("unet", "attention_unet", "cvt"), ("network.condition_channels=1",)
)
TASKS = {
    "denoise": Task(
        tests={"cbsd68": ("benchmark=cbsd68_sigma25",), "kodak24": ("benchmark=kodak24_sigma25",)},
        networks=(),
        share=1.0,
    ),
    "jpeg": Task(
        tests={f"kodak24_q{quality}": (f"benchmark=kodak24_q{quality}",) for quality in (10, 40)},
        train=("task=jpeg", "degradation=jpeg_range", "degradation.quality=[10,40]", *_MUON),
        own=_BLIND,
    ),
    "deblur": Task(
        tests={"kodak24": _degraded("kodak24", "motion_blur", "benchmark.degradation.length=[5,15]")},
        train=("task=deblur", "degradation=motion_blur", "degradation.length=[5,15]", *_MUON),
        own=_BLIND,
    ),
    "inpaint": Task(
        tests={"kodak24": ("benchmark=kodak24_inpaint",)},
        train=("task=inpaint", "degradation=inpaint_brush", *_MUON),
        own=_MASKED,
    ),
    "enlarge_x4": Task(
        tests={
            "set14": _degraded("set14", "bicubic_x4_same_size", "benchmark.color=y", "benchmark.border=4")
        },
        train=("task=super_resolution", "degradation=bicubic_x4_same_size", *_MUON),
        own=_BLIND,
    ),
}

TASKS |= {
    f"{task}_adamw": replace(TASKS[task], train=tuple(w for w in TASKS[task].train if w not in _MUON))
    for task in ("jpeg", "deblur")
}
TASKS["denoise_muon"] = replace(TASKS["denoise"], train=_MUON)
"""With the optimiser of the other tasks."""
TASKS["denoise_20min"] = replace(TASKS["denoise_muon"], share=4.0)
"""Four times the steps: about twenty minutes for each network on a core of its own."""


def main() -> None:
    options = _options()
    kept: Path = options.kept
    if not options.table:
        for seed in options.seeds.split(","):
            _one_seed(options.out, kept, options.task, options.networks, seed)
    for line in table(kept, options.task):
        print(line)


def _options() -> argparse.Namespace:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("out", type=Path, nargs="?", help="folder for runs, scores and model folders")
    made.add_argument("--task", choices=list(TASKS), default="denoise")
    made.add_argument("--networks", default="", help="names with commas (default: all)")
    made.add_argument("--seeds", default="1")
    made.add_argument("--kept", type=Path, default=_EXPERIMENTS, help="folder of runs.csv and photos.csv")
    made.add_argument("--table", action="store_true", help="the table of what is kept, and nothing else")
    options = made.parse_args()
    if options.out is None and not options.table:
        made.error("OUT is the folder for runs, scores and model folders")
    return options


def _one_seed(out: Path, kept: Path, task: str, names: str, seed: str) -> None:
    """Trains the networks that are not in the kept files yet, in sweeps, and keeps each run's results."""
    what = TASKS[task]
    known = {(line["task"], line["network"], line["seed"]) for line in _read(kept / "runs.csv")}
    wanted = names.split(",") if names else what.networks or tuple(_steps())
    missing = {name: _words(what, name) for name in wanted if (task, name, seed) not in known}
    for words in sorted(set(missing.values())):
        alike = [name for name in missing if missing[name] == words]
        sweep = out / task / "-".join([f"seed{seed}", *words])
        which = ",".join(f"comparison/{name}" for name in alike)
        typed = [f"experiments={which}", f"seed={seed}", *what.train, *words]
        _restora("train", "-m", *typed, f"hydra.sweep.dir={sweep}", "--yes")
        for path in sorted(sweep.glob("*/run.json")):
            record = read_json(path)
            named = next(word for word in record["overrides"] if word.startswith("experiments="))
            name = named.rpartition("/")[2]
            if record["status"] == "finished" and name in alike:
                _keep(path.parent, record, kept, {"task": task, "network": name, "seed": seed})


def _words(task: Task, network: str) -> tuple[str, ...]:
    own = task.own.get(network, ())
    return own if task.share == 1 else (*own, f"trainer.max_steps={round(task.share * _steps()[network])}")


def _steps() -> dict[str, int]:
    """The steps of each network's recipe."""
    costs = {item.name.rpartition("/"): item.cost for item in experiments()}
    return {
        name: int(cost.partition(" steps")[0].replace(",", ""))
        for (folder, _, name), cost in costs.items()
        if folder == "comparison"
    }


def _keep(run: Path, record: Mapping[str, Any], kept: Path, which: Line) -> None:
    """Evaluates a run, times it if no seed of its network is timed yet, and adds its lines."""
    photos: list[Line] = []
    for test, words in TASKS[which["task"]].tests.items():
        folder = run / "scores" / test
        if not (folder / "summary.json").exists():
            _restora("evaluate", f"checkpoint={run}", *words, f"output={folder}")
        for row in read_result(folder).rows:
            figures = {key: f"{row[key]:.4f}" for key in ("psnr", "ssim", "input_psnr")}
            photos.append({**which, "test": test, "photo": row["name"], **figures})
    timed = {line["network"] for line in _read(kept / "runs.csv") if line[_FORMATS[0]]}
    seconds = dict.fromkeys(_FORMATS, "") if which["network"] in timed else _seconds(run)
    cost, best = record["cost"], record["metrics"]["best"]
    _append(kept / "photos.csv", photos)
    line = {
        **which,
        "parameters": str(record["parameters"]),
        "macs_256": str(record["macs_256"]),
        "steps": str(cost["steps"]),
        "fit_seconds": str(cost["fit_seconds"]),
        "step_ms": str(cost["step_ms"]),
        "validation": f"{best['val/psnr']:.4f}",
        **seconds,
        "precision": record.get("precision") or record["config"]["trainer"]["precision"],
        "cpu": record["machine"]["cpu"],
        "torch": record["versions"]["torch"],
        "commit": str(record["git"]["commit"])[:7],
        "date": record["finished"][:10],
    }
    _append(kept / "runs.csv", [line])


def _seconds(run: Path) -> Line:
    """Seconds per megapixel in each format, as the export measures them; empty if it cannot."""
    folder = run / "model"
    if not (folder / "model.json").exists():
        _restora("export", str(run), str(folder), "--format", "onnx,openvino", "--threads", "1", check=False)
    written = (folder / "model.json").exists()
    formats = read_json(folder / "model.json")["parity"]["formats"] if written else {}
    found = {name: formats.get(name, {}).get("seconds_per_megapixel") for name in _FORMATS}
    return {name: "" if value is None else f"{value:.2f}" for name, value in found.items()}


def _restora(*words: str, check: bool = True) -> None:
    print("restora", *words, flush=True)
    subprocess.run([sys.executable, "-m", "restora", *words], check=check)


def _read(path: Path) -> list[Line]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _append(path: Path, lines: list[Line]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows(lines)


def table(kept: Path, task: str) -> Iterator[str]:
    """The table in Markdown, best first; a row for each network with all photos of the test sets."""
    runs: dict[str, list[Line]] = defaultdict(list)
    for kept_run in _read(kept / "runs.csv"):
        if kept_run["task"] == task:
            runs[kept_run["network"]].append(kept_run)
    tests = list(TASKS[task].tests)
    scores: dict[str, dict[str, dict[str, dict[str, float]]]] = {test: {} for test in tests}
    inputs: dict[str, dict[str, float]] = {test: {} for test in tests}
    for photo in _read(kept / "photos.csv"):
        if photo["task"] == task and photo["network"] in runs:
            by_seed = scores[photo["test"]].setdefault(photo["network"], {})
            by_seed.setdefault(photo["seed"], {})[photo["photo"]] = float(photo["psnr"])
            inputs[photo["test"]][photo["photo"]] = float(photo["input_psnr"])
    if not runs:
        return
    first, *others = tests
    columns = ["rank", "network", f"{first} dB", "95 %", "seeds", *(f"{test} dB" for test in others)]
    costs = ["k parameters", "GMACs at 256²", "steps"]
    timed = any(one[_FORMATS[0]] for lines in runs.values() for one in lines)
    costs += ["s/MP torch", "ONNX Runtime", "OpenVINO"] if timed else []
    columns += costs
    yield "| " + " | ".join(columns) + " |"
    yield "|---:|---|" + "---:|" * (len(columns) - 2)
    methods = {name: list(by_seed.values()) for name, by_seed in scores[first].items()}
    for line in leaderboard(methods):
        run, interval = runs[line.name][0], line.score
        yield _row(
            line.label,
            f"`{line.name}`",
            f"{interval.mean:.2f}",
            f"{interval.low:.2f}–{interval.high:.2f}",
            " ".join(f"{_mean(photos):.2f}" for photos in methods[line.name]),
            *(f"{_mean_of_seeds(scores[test][line.name]):.2f}" for test in others),
            f"{int(run['parameters']) / 1e3:,.0f}",
            f"{int(run['macs_256']) / 1e9:.1f}",
            f"{int(run['steps']):,}",
            *(next((one[key] for one in runs[line.name] if one[key]), "–") for key in _FORMATS if timed),
        )
    means = [f"{_mean(inputs[test]):.2f}" for test in tests]
    yield _row("", "the input", means[0], "", "", *means[1:], *([""] * len(costs)))


def _mean_of_seeds(by_seed: Mapping[str, Scores]) -> float:
    return sum(map(_mean, by_seed.values())) / len(by_seed)


def _mean(scores: Scores) -> float:
    return sum(scores.values()) / len(scores)


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
