"""Files of strangers that want to run code, lead elsewhere or claim absurd sizes."""

import json
import math
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from disguises import DISGUISES
from rounds import Rounds, stopped, tail


class Runs:
    """An object whose unpickling leaves a mark."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return exec, (f"open({str(self.marker)!r}, 'w')",)


def strangers(r: Rounds, rounds: int) -> None:
    """Files that want to run code, lead elsewhere, claim absurd sizes, are markup, or are after secrets."""
    tries = (_pickled, _targets, _absurd, _override, _leads_out, *DISGUISES)
    for number in range(rounds):
        folder, marker = r.work / f"stranger{number}", r.work / f"ran{number}"
        attempt = tries[number % len(tries)]
        if attempt in DISGUISES:
            r.round(*attempt(r, folder))
        else:
            r.round(*_held_against(r, *attempt(r, folder, marker), marker))
        shutil.rmtree(folder, ignore_errors=True)


def _held_against(r: Rounds, what: str, words: list[Any], marker: Path) -> tuple[str, str | None]:
    started = time.monotonic()
    code, output = r.run(*words)
    problem = None
    if marker.exists() and (marker.is_file() or any(marker.iterdir())):
        problem = "code ran, or something was written elsewhere"
    elif "Traceback (most" in output:
        problem = f"a traceback: {tail(output)}"
    elif code not in (0, 2):
        problem = f"exit {code}: {tail(output)}"
    elif time.monotonic() - started > 60 + 5 * r.seconds():
        problem = f"it took {time.monotonic() - started:.0f} s"
    return f"{what} (exit {code})", problem


def _pickled(r: Rounds, folder: Path, marker: Path) -> tuple[str, list[Any]]:
    stopped(r, folder)
    name = r.random.choice(("last", "best", "previous"))
    path = folder / "checkpoints" / f"{name}.ckpt"
    content = torch.load(path, weights_only=True)
    content[r.random.choice(("extra", "callbacks", "restora", "loops"))] = Runs(marker)
    torch.save(content, path, _use_new_zipfile_serialization=r.random.random() < 0.7)
    photo = r.reference() / "images" / "chelsea_degraded.png"
    command = r.random.choice(("train", "export", "restore", "evaluate"))
    words = {
        "train": ["train", f"resume={folder}"],
        "export": ["export", path, folder / "model", "--no-onnx"],
        "restore": ["restore", path, photo, folder / "out.png"],
        "evaluate": [
            "evaluate",
            f"checkpoint={path}",
            "benchmark=degraded",
            f"benchmark.root={folder / 'images'}",
        ],
    }[command]
    return f"a pickled object in {name}.ckpt, {command}", words


def _targets(r: Rounds, folder: Path, marker: Path) -> tuple[str, list[Any]]:
    record = stopped(r, folder)
    target = r.random.choice(
        (
            "os.system",
            "subprocess.getoutput",
            "builtins.exec",
            "restora.cli.main",
            "restora.config.build",
            "runpy.run_path",
        )
    )
    hostile = {"_target_": target, "command": f"touch {marker}", "cmd": f"touch {marker}", "argv": ["train"]}
    where = r.random.choice(("degradation", "network", "family", "data"))
    record["config"][where] = hostile
    (folder / "run.json").write_text(json.dumps(record))
    best = folder / "checkpoints" / "best.ckpt"
    content = torch.load(best, weights_only=True)
    content["restora"]["degradation"] = hostile
    if where == "network":
        content["restora"]["network"] = {"name": target, "arguments": hostile}
    torch.save(content, best)
    shutil.rmtree(folder / "images")
    words = r.random.choice(
        (
            ["report", folder, "--baselines", "--output", folder / "r.html"],
            ["export", folder, folder / "model", "--no-onnx"],
            ["preview", f"poison={folder}"],
            [
                "evaluate",
                f"checkpoint={best}",
                "benchmark=degraded",
                f"benchmark.root={r.reference() / 'images'}",
            ],
        )
    )
    (folder / "poison.jsonl").write_text('{"step": 1, "batches": [1], "photos": ["a"]}\n')
    return f"{target} as {where}, {words[0]}", words


def _absurd(r: Rounds, folder: Path, marker: Path) -> tuple[str, list[Any]]:
    shutil.copytree(r.model(), folder)
    path = folder / "model.json"
    content = json.loads(path.read_text())
    arguments = content["network"]["arguments"]
    value = r.random.choice((10**9, -1, 0, 1e300, "x", [], {}, None, [3] * 5000, math.pi, True, 400_000))
    key = r.random.choice([*arguments, "scale", "size_multiple", "network", "in_channels"])
    if key in arguments:
        arguments[key] = value
    else:
        content[key] = value
    path.write_text(json.dumps(content))
    photo = r.reference() / "images" / "chelsea_degraded.png"
    return f"model.json says {key}: {str(value)[:20]}", ["restore", folder, photo, folder / "out.png"]


def _override(r: Rounds, folder: Path, marker: Path) -> tuple[str, list[Any]]:
    record = stopped(r, folder)
    word = r.random.choice(
        (
            f"+callbacks.x={{_target_:os.system,command:'touch {marker}'}}",
            f"++data.source={{_target_:subprocess.getoutput,cmd:'touch {marker}'}}",
            "hydra/launcher=joblib", "hydra.searchpath=[file:///tmp]", "plugins=[antigravity]",
            "--config-dir=/tmp", "-m", "+callbacks.x=${hydra:job}", "callbacks.non_finite._target_=os.system",
        )
    )  # fmt: skip
    record["overrides"] = [*record["overrides"], word]
    (folder / "run.json").write_text(json.dumps(record))
    path = folder / ".hydra" / "overrides.yaml"
    path.write_text(path.read_text() + f"- {json.dumps(word)}\n")
    return f"an override {word[:40]}", ["train", f"resume={folder}"]


def _leads_out(r: Rounds, folder: Path, marker: Path) -> tuple[str, list[Any]]:
    """A link in the run folder, or a word of it, by which something would be written elsewhere."""
    record = stopped(r, folder)
    name = r.random.choice((".lock", "train.log", "metrics.csv", "images", "checkpoints", "word"))
    if name == "word":
        marker.mkdir()
        callback, place = (
            r.random.choice(("last", "best", "test_images")),
            r.random.choice((str(marker), f"${{run_dir}}/../{marker.name}", f"../{marker.name}")),
        )
        word = f"callbacks.{callback}.directory={place}"
        record["overrides"] = [*record["overrides"], word]
        (folder / "run.json").write_text(json.dumps(record))
        return f"a run that says {word}", ["train", f"resume={folder}"]
    path = folder / name
    if path.is_dir():
        marker.mkdir()
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.symlink_to(marker)
    return f"{name} is a link", ["train", f"resume={folder}"]
