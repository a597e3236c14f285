"""Adds a trained run to the shipped models: exported, in float16, with its card. For use in a checkout.

Enters: a run folder. Leaves: `zoo/models/NAME` with weights.safetensors (float16, in coarse steps),
model.json, which records how and where it was trained, and README.md with the photographers. Figures are
added by `restora zoo verify NAME --write`.
"""

import math
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save
from torch import Tensor

from restora.artifact.card import write_card
from restora.artifact.checkpoint import locate
from restora.artifact.export import export_model
from restora.artifact.model_folder import (
    CARD,
    WEIGHTS,
    ModelDescription,
    file_digests,
    header_of,
    read_description,
    write_description,
)
from restora.data.free_photos import manifest
from restora.files import write_whole
from restora.words import figure
from restora.zoo.index import FOLDER
from restora.zoo.references import CURVE_PHOTOS, PSNR

LARGEST = 3_000_000
"""Most bytes of the weights of one model."""
STEP = 1 / 64
"""Step of the weights of a large tensor, in units of their standard deviation."""
SMALL = 2000
"""Tensors of fewer weights keep their digits."""
_LICENCE = "## Licence"
_NAMED = {
    " (run beside this folder, here called `model`)": "",
    "restora restore model ": "restora restore zoo:{name} ",
    'Restorer.load("model"': 'Restorer.load("zoo:{name}"',
}
"""Phrases about the folder's place in a model's card, and their replacements for a shipped model."""


def ship(run: str, name: str, *, commit: str | None = None, folder: Path = FOLDER) -> Path:
    """Exports the best checkpoint of `run` to the model folder `folder`/`name`, which it returns.

    `commit` is used if the run has recorded none. Raises ValueError for weights beyond 3 MB.
    """
    source = locate(run)
    target = folder / name
    description = export_model(source, target, wanted=())
    weights = {
        key: rounded(value) if value.is_floating_point() else value
        for key, value in load_file(target / WEIGHTS).items()
    }
    data = save(weights, metadata=header_of(description))
    if len(data) > LARGEST:
        raise ValueError(
            f"{name}: the weights have {len(data) / 1e6:.1f} MB, at most {LARGEST / 1e6:g} are shipped"
        )
    write_whole(target / WEIGHTS, data)
    metrics = description.metrics | {"training": _training(source.record, commit), "benchmarks": []}
    write(target, replace(description, name=name, metrics=metrics))
    return target


def rounded(weights: Tensor) -> Tensor:
    """The weights in float16; those of a large layer in steps of 1/64 of their standard deviation.

    The step is the power of two nearest to that, so float16 holds its multiples exactly. The error is about
    47 dB below the weights, and a packed file is a quarter smaller than with all of float16's digits. Small
    layers, such as the first and the last, keep their digits: their errors reach the result unaveraged.
    """
    deviation = float(weights.float().std(correction=0))
    if weights.numel() < SMALL or deviation == 0:
        return weights.half()
    step = 2.0 ** round(math.log2(deviation * STEP))
    return ((weights.float() / step).round() * step).half()


def _training(record: dict[str, Any], commit: str | None) -> dict[str, Any]:
    """The entries of the card on how the run was trained."""
    cost, machine = record.get("cost") or {}, record.get("machine") or {}
    return {
        "command": f"restora train experiments={record.get('experiment')}",
        "max_time": ((record.get("config") or {}).get("trainer") or {}).get("max_time"),
        "commit": (record.get("git") or {}).get("commit") or commit,
        "date": str(record.get("started", ""))[:10],
        "machine": machine.get("gpu") or machine.get("cpu"),
        "seconds": round(float(cost.get("fit_seconds") or 0)),
        "steps": cost.get("steps"),
        "seed": record.get("seed"),
    }


def write(folder: Path, description: ModelDescription) -> None:
    """Writes model.json and the card of a shipped model for its present weights and figures."""
    description = replace(description, sha256=file_digests(folder))
    write_description(folder, description)
    write_card(folder, description)
    card = folder / CARD
    head, _, _ = card.read_text(encoding="utf-8").partition(_LICENCE)
    for said, meant in _NAMED.items():
        head = head.replace(said, meant.format(name=description.name))
    sections = [
        head.rstrip(),
        _measured(description) + _curve(description),
        _made(description),
        _licence(),
        _photographers(),
    ]
    write_whole(card, "\n\n".join(sections) + "\n")


def with_figures(
    folder: Path, figures: list[dict[str, Any]], curve: list[dict[str, float]] | None = None
) -> None:
    """Adds measured figures and the points of its `curve` to a shipped model.

    A figure has `benchmark`, `psnr`, `ssim`, `input_psnr`, `photos` and `date`, a point `severity`,
    `psnr` and `input_psnr`.
    """
    description = read_description(folder)
    measured: dict[str, Any] = {"benchmarks": figures} | ({} if curve is None else {"curve": curve})
    write(folder, replace(description, metrics=description.metrics | measured))


def missed(benchmark: str, psnr: float) -> str:
    """How a figure compares with the strongest reference; empty if there is none."""
    known = PSNR.get(benchmark)
    if not known:
        return ""
    method, value = list(known.items())[-1]
    difference = math.floor((psnr - value) * 100 + 0.5) / 100
    return f"{abs(difference):.2f} dB {'below' if difference < 0 else 'above'} {method}"


def _measured(model: ModelDescription) -> str:
    lines = ["## Measured", ""]
    if not model.metrics.get("benchmarks"):
        return "\n".join([*lines, "Not measured yet: `restora zoo verify NAME --write`."])
    lines += [
        f"By `restora zoo verify {model.name}`, float32, outputs rounded to 8 bits; others by their papers.",
        "",
        "| benchmark | photos | degraded | restored | SSIM | others |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for row in model.metrics["benchmarks"]:
        others = ", ".join(f"{name} {value:.2f}" for name, value in PSNR.get(row["benchmark"], {}).items())
        compared = missed(row["benchmark"], row["psnr"])
        cells = [
            row["benchmark"],
            str(row["photos"]),
            figure("psnr", row["input_psnr"]),
            figure("psnr", row["psnr"]),
            f"{row['ssim']:.4f}",
            f"{others} ({compared})" if compared else others,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _curve(model: ModelDescription) -> str:
    """The section on the severities at which the model helps or harms."""
    points = model.metrics.get("curve") or []
    if not points:
        return ""
    harming = [f"{point['severity']:g}" for point in points if point["psnr"] < point["input_psnr"]]
    lines = [
        "",
        "",
        f"By severity, on the first {CURVE_PHOTOS} photos of the test set, also outside its range:",
        "",
    ]
    for name, key in (("severity", "severity"), ("degraded, dB", "input_psnr"), ("restored, dB", "psnr")):
        cells = [f"{point[key]:g}" if key == "severity" else f"{point[key]:.2f}" for point in points]
        lines.append(f"| {name} | {' | '.join(cells)} |")
        if key == "severity":
            lines.append(f"|---|{'---:|' * len(points)}")
    if harming:
        lines += [
            "",
            f"**At {', '.join(harming)} the result is worse than its input:** leave such photos as they are.",
        ]
    return "\n".join(lines)


def _made(model: ModelDescription) -> str:
    training = model.metrics.get("training") or {}
    return (
        "## How it was made\n\n"
        f"`{training.get('command')}`, {training.get('steps')} steps in {training.get('seconds')} s "
        f"(max_time {training.get('max_time')}), seed {training.get('seed')}, "
        f"commit {training.get('commit')}, {training.get('date')}, {training.get('machine')}. "
        "Large layers were rounded to steps of 1/64 of their weights' deviation after the check at export; "
        "the figures are those of the rounded weights."
    )


def _licence() -> str:
    return f"{_LICENCE}\n\nThe weights have a licence file of their own, `LICENSE-WEIGHTS.md` one folder up."


def _photographers() -> str:
    """The section on the photographers of the data set, by licence."""
    by_licence: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for photo in manifest()[1].values():
        by_licence[photo.licence][photo.author] += 1
    lines = [
        "## Photographers",
        "",
        "The data set is `free_photos` (`restora prepare data=free_photos`), whose manifest, "
        "`restora/data/free_photos.json`, has each photo's file and source. All were reduced in size.",
        "",
    ]
    for licence, authors in sorted(by_licence.items()):
        who = ", ".join(
            name if count == 1 else f"{name} ({count})" for name, count in sorted(authors.items())
        )
        lines.append(f"- {licence}: {who}")
    return "\n".join(lines)
