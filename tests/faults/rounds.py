"""What the rounds share: a folder, random numbers, commands, an undisturbed run, the count."""

import csv
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from warm_start import Started, start_restora

MODEL_FILES = ("model.json", "weights.safetensors")
QUICK = [
    "network=dncnn_small", "network.depth=3", "network.channels=8", "data.patch_size=24", "data.batch_size=4",
    "data.val_crop=48", "data.test_crop=48", "data.steps_per_epoch=60", "trainer.max_steps=150",
    "trainer.val_check_interval=50", "trainer.log_every_n_steps=10", "callbacks.last.every_n_steps=7",
    "threads=1", "leakage.check=false", "logger.mode=disabled",
]  # fmt: skip
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_TESTS = str(Path(__file__).resolve().parents[1])


class Rounds:
    """Runs commands and counts what was tried and survived."""

    def __init__(self, work: Path, seed: int) -> None:
        self.work, self.random = work, random.Random(seed)
        self.counts: dict[str, list[int]] = {}
        self.kind = ""
        self.environment = {
            "RESTORA_DATA": str(work / "data"),
            "NO_ALBUMENTATIONS_UPDATE": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, (_TESTS, os.environ.get("PYTHONPATH")))),
        }
        self._reference: tuple[Path, float] | None = None
        self._model: Path | None = None

    # --- commands -------------------------------------------------------------------------------------------

    def start(self, *words: object, **environment: str) -> Started:
        """A command in a process of its own, in the working folder, which is forked from one that is warm."""
        return start_restora(*words, cwd=self.work, **(self.environment | environment))

    def run(self, *words: object, **environment: str) -> tuple[int, str]:
        """Exit status and what was said."""
        process = self.start(*words, **environment)
        try:
            output, _ = process.communicate(timeout=400)
        finally:
            process.kill()
        return int(process.returncode or 0), output

    def run_limited(self, limit: int, *words: object) -> tuple[int, str]:
        """In a fresh process with so many bytes of addresses."""
        done = subprocess.run(
            [sys.executable, "-m", "restora", *map(str, words)],
            env={**os.environ, **self.environment, "OMP_NUM_THREADS": "1"},
            cwd=self.work,
            capture_output=True,
            text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
            timeout=900,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    # --- what nothing happened to ---------------------------------------------------------------------------

    def reference(self) -> Path:
        """A run that nothing happened to."""
        return self._undisturbed()[0]

    def seconds(self) -> float:
        """How long it took."""
        return self._undisturbed()[1]

    def _undisturbed(self) -> tuple[Path, float]:
        if self._reference is None:
            folder = self.work / "reference"
            self.must("train", *QUICK, "trainer.max_steps=1", "hydra.run.dir=warm_up")  # packs the photos
            started = time.monotonic()
            self.must("train", *QUICK, f"hydra.run.dir={folder}")
            self._reference = folder, time.monotonic() - started
        return self._reference

    def model(self) -> Path:
        """Its model folder."""
        if self._model is None:
            self._model = self.work / "model"
            self.must("export", self.reference(), self._model, "--no-onnx")
        return self._model

    def must(self, *words: object) -> str:
        code, output = self.run(*words)
        assert code == 0, output
        return output

    # --- the count ------------------------------------------------------------------------------------------

    def round(self, what: str, problem: str | None) -> None:
        count = self.counts.setdefault(self.kind, [0, 0])
        count[0] += 1
        count[1] += problem is None
        verdict = "survived" if problem is None else "FAILED  "
        print(f"{verdict}  {self.kind}: {what}{f': {problem}' if problem else ''}", flush=True)

    def not_tried(self, why: str) -> None:
        print(f"not tried  {self.kind}: {why}", flush=True)


def stopped(r: Rounds, folder: Path) -> dict[str, Any]:
    """A copy of the undisturbed run that says it was stopped; its record."""
    shutil.copytree(r.reference(), folder)
    record = record_of(folder) | {"status": "stopped"}
    (folder / "run.json").write_text(json.dumps(record))
    return record


def different(reference: Path, folder: Path) -> str | None:
    """What is not as in the run that nothing happened to; None where everything is."""
    then, now = (
        torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for run in (reference, folder)
    )
    if wrong := [key for key in then if not torch.equal(then[key], now[key])]:
        return f"other weights: {wrong[:3]}"
    if rows(folder) != rows(reference):
        return "other rows in metrics.csv"
    record, before = (json.loads((run / "run.json").read_text()) for run in (folder, reference))
    if record["status"] != "finished":
        return f"status {record['status']}"
    if record["test"]["psnr"] != before["test"]["psnr"] or record["metrics"] != before["metrics"]:
        return "other scores"
    return leftovers(folder)


def rows(folder: Path) -> list[dict[str, str]]:
    """metrics.csv without the clock.

    Held-out scores have no step of their own: Lightning writes the one before where no step was left to make.
    """
    with (folder / "metrics.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    return [
        {
            k: v
            for k, v in row.items()
            if k not in ("seconds", *(("step", "epoch") if row.get("test/psnr") else ()))
        }
        for row in found
    ]


def leftovers(folder: Path) -> str | None:
    """Drafts that nobody will use."""
    found = [path.name for path in folder.rglob("*") if path.suffix in (".tmp", ".part")]
    found += [path.name for path in folder.parent.glob(".model-*")]
    return f"left behind: {found[:3]}" if found else None


def refused(code: int, output: str, *words: str) -> str | None:
    """What is wrong with a refusal: one message that has one of the words, and no traceback."""
    if "Traceback (most" in output:
        return f"a traceback: {tail(output)}"
    if code != 2:
        return f"exit {code}: {tail(output)}"
    return None if any(word in output for word in words) else f"nothing of {words}: {tail(output)}"


def tail(output: str) -> str:
    return " | ".join(line.strip()[:160] for line in output.strip().splitlines()[-2:])


def record_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "run.json").read_text()))
