"""`restora preview poison=RUN`: recreates and shows the photos of a training step that was skipped.

Enters: a run folder and its `poison.jsonl`. Leaves: one PNG, rows for the crops of the batch, columns for the
clean and the degraded crop, the target and the condition, each with its count of values that are not finite;
and the numbers of the step on the terminal. A batch is a function of the configuration, its number and, with
`OnDemand`, the shares of the step, so the run stores no photos. The run's configuration is built from
registered parts only.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restora.files import check_writable, write_whole

if TYPE_CHECKING:
    from torch import Tensor

    from restora.apps.contact_sheet import Cell
    from restora.types import Batch

_KEYS = ("poison", "step", "output", "rows", "plugins")
_LONGEST = 300
_CELL = 160
"""Least side of a cell; smaller crops are shown with larger pixels."""


def show(words: Sequence[str]) -> int:
    """Raises ValueError for a folder without such steps, and if the batch cannot be recreated."""
    from restora.apps.contact_sheet import Row, contact_sheet, encoded

    chosen = _options(words)
    run = Path(chosen["poison"]).expanduser().resolve()
    row = _chosen_row(run, chosen.get("step"))
    output = Path(chosen.get("output", "poison.png")).resolve()
    if output.suffix.lower() != ".png":
        raise ValueError(
            f"output must be a PNG file, got {output}: write output={output.with_suffix('.png')}"
        )
    check_writable(output, setting="output")
    batches = _made_again(run, row["batches"], row.get("shares"))
    photos = [photo for batch in batches for photo in batch.photos()]
    named = [photo for photo in photos if photo.names[0] in row["photos"]]  # where the loss was not finite
    shown = (named or photos)[: int(chosen.get("rows", 8))]
    headings = [name for name, pixels in _pictures(shown[0]).items() if pixels is not None]
    rows = [
        Row(photo.names[0], [_cell(pixels) for pixels in _pictures(photo).values() if pixels is not None])
        for photo in shown
    ]
    numbers = f"loss {row.get('loss')}, gradient {row.get('gradient_norm')}, batch {row['batches']}"
    drawn = str(row.get("degradation"))
    drawn = drawn if len(drawn) <= _LONGEST else f"{drawn[:_LONGEST]} …"
    sheet = contact_sheet(
        title=f"step {row['step']}, skipped", subtitle=f"{numbers} · {drawn}", columns=headings, rows=rows
    )
    write_whole(output, encoded(sheet, "PNG"))
    print(f"step {row['step']} of {run}: {numbers}")
    print(output)
    return 0


def _options(words: Sequence[str]) -> dict[str, str]:
    chosen = dict(word.split("=", 1) for word in words if "=" in word)
    if unknown := [word for word in words if word.partition("=")[0] not in _KEYS or "=" not in word]:
        raise ValueError(f"preview poison= takes {', '.join(_KEYS)}; got {unknown[0]}")
    for key in ("step", "rows"):
        if not chosen.get(key, "1").isdigit() or (key == "rows" and chosen.get(key) == "0"):
            raise ValueError(f"{key} must be a whole number, got {chosen[key]}")
    return chosen


def _chosen_row(run: Path, step: str | None) -> dict[str, Any]:
    """The row of `step` in poison.jsonl, or the first row."""
    from restora.files import read_json_lines

    path = run / "poison.jsonl"
    rows = [row for row in read_json_lines(path) if _is_row(row)] if path.is_file() else []
    if not rows:
        raise ValueError(f"{run} skipped no step: its poison.jsonl is missing or empty")
    found = [row for row in rows if step is None or row["step"] == int(step)]
    if not found:
        listed = ", ".join(str(row["step"]) for row in rows[:20])
        raise ValueError(f"step {step} was not skipped: set step= to one of {listed}")
    return found[0]


def _is_row(row: dict[str, Any]) -> bool:
    batches, photos = row.get("batches"), row.get("photos")
    return (
        isinstance(row.get("step"), int)
        and isinstance(batches, list)
        and isinstance(photos, list)
        and bool(batches)
        and all(isinstance(number, int) and number >= 0 for number in batches)
    )


def _made_again(run: Path, batches: Sequence[int], shares: Any = None) -> "list[Batch]":
    """The batches of a run by their numbers, each with the parts of all processes.

    `shares` are those of an `OnDemand` degradation at the step, by the names of its stages.
    """
    from restora.data.module import PhotoData
    from restora.degradations.compose.composition import OnDemand, OneOf
    from restora.files import read_json
    from restora.registry import build
    from restora.strangers import started_in

    record = read_json(run / "run.json")
    config = record.get("config") if isinstance(record, dict) else None
    if not isinstance(config, dict) or not isinstance(config.get("data"), dict):
        raise ValueError(f"{run / 'run.json'} has no configuration: the batch cannot be made again")
    there = started_in(record, run)
    if there is not None and there.is_dir():
        os.chdir(there)  # its relative paths start there
    degradation = build(config["degradation"], "degradation")
    if isinstance(degradation, OnDemand) and isinstance(shares, dict):
        degradation = OneOf(stages=degradation.stages, weights=shares)
    data: PhotoData = build(config["data"], "data", degradation=degradation)
    data.prepare_data()
    data.setup("fit")
    cut: Any = data.train_dataloader().dataset
    return [data.on_after_batch_transfer(cut[number], 0) for number in batches]


def _pictures(photo: "Batch") -> "dict[str, Tensor | None]":
    return {
        "clean": photo.clean,
        "degraded": photo.degraded,
        "learnt from": photo.target,
        "condition": None if photo.condition is None else photo.condition[:, :1],
    }


def _cell(photo: "Tensor") -> "Cell":
    """(1,C,h,w) -> its picture, grey if C < 3; values that are not finite are black."""
    from restora.apps.contact_sheet import Cell
    from restora.image import to_bytes

    wrong = int((~photo.isfinite()).sum())
    pixels = photo[:, :3] if photo.shape[1] >= 3 else photo[:, :1]
    pixels = to_bytes(pixels.nan_to_num(0.0, 0.0, 0.0)).expand(-1, 3, -1, -1)
    times = max(1, _CELL // pixels.shape[-1])
    pixels = pixels.repeat_interleave(times, -1).repeat_interleave(times, -2)
    finite = photo[photo.isfinite()]
    span = f"{float(finite.min()):.3g} to {float(finite.max()):.3g}" if len(finite) else "nothing finite"
    return Cell(
        pixels[0].permute(1, 2, 0).contiguous().numpy(), f"{span}, {wrong} not finite" if wrong else span
    )
