"""Processes that are killed at a random moment, and what the same command makes of it afterwards."""

import contextlib
import shutil
import signal
import subprocess
import time
from pathlib import Path

import torch
from PIL import Image
from rounds import MODEL_FILES, QUICK, SIGNALS, Rounds, different, leftovers, tail
from safetensors.torch import load_file
from warm_start import Started


def kills(r: Rounds, rounds: int) -> None:
    """A signal at a random moment; then the same command, or the run goes on, and all is as if nothing had
    happened."""
    moments = (_kill_training, _kill_saving, _kill_packing, _kill_export, _kill_report, _kill_restoring)
    weights = (5, 2, 1, 1, 1, 1)
    for number in range(rounds):
        moment = moments[number] if number < len(moments) else r.random.choices(moments, weights)[0]
        how = r.random.choice(SIGNALS)
        folder = r.work / f"kill{number}"
        what, problem = moment(r, folder, how)
        r.round(f"{how.name} {what}", problem)
        shutil.rmtree(folder, ignore_errors=True)


def _hit(process: Started, how: signal.Signals, seconds: float) -> bool:
    """Sends the signal after so long; whether the process still ran."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
        return False
    process.send_signal(how)
    _end(process)
    return True


def _end(process: Started) -> None:
    try:
        process.wait(60)
    finally:
        process.kill()
        process.wait(10)


def _go_on(r: Rounds, folder: Path) -> str | None:
    there = (folder / "run.json").exists()
    words = [f"resume={folder}"] if there else [*QUICK, f"hydra.run.dir={folder}"]
    code, output = r.run("train", *words)
    return tail(output) if code else different(r.reference(), folder)


def _kill_training(r: Rounds, folder: Path, how: signal.Signals) -> tuple[str, str | None]:
    moment = r.random.uniform(0.1, 1.1) * r.seconds()
    hit = _hit(r.start("train", *QUICK, f"hydra.run.dir={folder}"), how, moment)
    return f"after {moment:.1f} s of training{'' if hit else ' (it had ended)'}", _go_on(r, folder)


def _kill_saving(r: Rounds, folder: Path, how: signal.Signals) -> tuple[str, str | None]:
    """While the draft of a checkpoint is there."""
    r.reference()
    process = r.start("train", *QUICK, f"hydra.run.dir={folder}")
    draft, skip = folder / "checkpoints" / "last.ckpt.tmp", r.random.randrange(15)
    seen = False
    while process.poll() is None:
        if draft.exists():
            if skip == 0:
                seen = True
                break
            skip -= 1
            while draft.exists() and process.poll() is None:
                time.sleep(0.0005)
        time.sleep(0.0005)
    process.send_signal(how)
    _end(process)
    return f"while a checkpoint was written{'' if seen else ' (not met)'}", _go_on(r, folder)


def _kill_packing(r: Rounds, folder: Path, how: signal.Signals) -> tuple[str, str | None]:
    data, moment = folder.with_name(f"{folder.name}data"), r.random.uniform(0.3, 3.0)
    r.reference()
    process = r.start("prepare", "data=sample", f"data_dir={data}")
    _hit(process, how, moment)
    code, output = r.run("prepare", "data=sample", f"data_dir={data}", "--verify")
    problem = tail(output) if code else leftovers(data)
    if problem is None:
        code, output = r.run("train", *QUICK, f"hydra.run.dir={folder}", RESTORA_DATA=str(data))
        problem = tail(output) if code else different(r.reference(), folder)
    shutil.rmtree(data, ignore_errors=True)
    return f"after {moment:.1f} s of packing", problem


def _kill_export(r: Rounds, folder: Path, how: signal.Signals) -> tuple[str, str | None]:
    whole, moment = r.model(), r.random.uniform(0.05, 2.0)
    folder.mkdir()
    target = folder / "model"
    _hit(r.start("export", r.reference(), target, "--no-onnx"), how, moment)
    if target.exists() and set(MODEL_FILES) - {path.name for path in target.iterdir()}:
        return "exporting", "half a model folder"
    code, output = r.run("export", r.reference(), target, "--no-onnx")
    problem = tail(output) if code else leftovers(target)
    if problem is None:
        made, wanted = (load_file(place / "weights.safetensors") for place in (target, whole))
        problem = None if all(torch.equal(made[key], wanted[key]) for key in wanted) else "other weights"
    return f"after {moment:.1f} s of exporting", problem


def _kill_report(r: Rounds, folder: Path, how: signal.Signals) -> tuple[str, str | None]:
    moment, page = r.random.uniform(0.05, 3.0), folder / "report.html"
    r.reference()
    folder.mkdir()
    _hit(r.start("report", r.reference(), "--baselines", "--output", page), how, moment)
    if page.exists() and not page.read_text().rstrip().endswith("</html>"):
        return "reporting", "half a page"
    code, output = r.run("report", r.reference(), "--baselines", "--output", page)
    return f"after {moment:.1f} s of reporting", tail(output) if code else leftovers(folder)


def _kill_restoring(r: Rounds, folder: Path, how: signal.Signals) -> tuple[str, str | None]:
    photos, moment = folder / "in", r.random.uniform(0.2, 3.0)
    photos.mkdir(parents=True)
    for number in range(12):
        Image.effect_noise((160, 120), 20 + number).convert("RGB").save(photos / f"{number}.png")
    model = r.model()
    _hit(r.start("restore", model, photos, folder / "out"), how, moment)
    for path in (folder / "out").glob("*.png"):
        Image.open(path).load()  # whole, or not there
    code, output = r.run("restore", model, photos, folder / "out", "--skip-existing")
    r.must("restore", model, photos, folder / "calm")
    made, wanted = (
        {path.name: path.read_bytes() for path in (folder / name).iterdir()} for name in ("out", "calm")
    )
    problem = tail(output) if code else None if made == wanted else f"other files: {sorted(made)[:3]}"
    return f"after {moment:.1f} s of restoring a folder", problem
