"""The kinds of faults, one function each: it makes so many rounds of the kind."""

import contextlib
import csv
import hashlib
import io
import itertools
import json
import math
import os
import shutil
import subprocess
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from archive_server import ArchiveServer, Plan, zipped
from kills import kills
from PIL import Image
from rounds import MODEL_FILES, QUICK, Rounds, different, leftovers, record_of, refused, rows, tail
from wandb_server import WandbServer

FILES = (
    "checkpoints/last.ckpt", "checkpoints/previous.ckpt", "checkpoints/best.ckpt", "run.json", "metrics.csv",
    ".hydra/overrides.yaml", ".hydra/config.yaml",
)  # fmt: skip


# --- damaged files ------------------------------------------------------------------------------------------


def files(r: Rounds, rounds: int) -> None:
    """Files cut off, emptied, replaced or with a bit flipped: recognised and named, or without effect."""
    store = next((r.reference() and r.work / "data").rglob("photos.bin")).parent
    cases = [(r.reference(), name) for name in FILES] + [(r.model(), name) for name in MODEL_FILES]
    cases += [(store, "photos.bin"), (store, "index.json")]
    for number in range(rounds):
        source, name = cases[number] if number < len(cases) else r.random.choice(cases)
        folder = r.work / f"file{number}"
        if source == store:
            data = r.work / f"data{number}"
            shutil.copytree(r.work / "data", data)
            place = data / store.relative_to(r.work / "data")
        else:
            shutil.copytree(source, folder)
            place = folder
        what = f"{_damage(place / name, r)} {name}"
        if source == store:
            code, output = r.run(
                "prepare", "data=sample", f"data_dir={data}", "--verify", RESTORA_DATA=str(data)
            )
            problem = "a traceback" if "Traceback (most" in output else None
            if code == 0:  # packed again: what comes out is the same
                code, output = r.run("train", *QUICK, f"hydra.run.dir={folder}", RESTORA_DATA=str(data))
                problem = problem or (tail(output) if code else different(r.reference(), folder))
            elif problem is None and not any(word in output for word in (name, place.name)):
                problem = f"exit {code}: {tail(output)}"
            shutil.rmtree(data)
        elif source == r.reference():
            if name != "run.json":
                (folder / "run.json").write_text(json.dumps(record_of(folder) | {"status": "stopped"}))
            code, output = r.run("train", f"resume={folder}")
            if code == 0 and name == "metrics.csv":  # rows that are gone are named; the run is the same
                problem = None if Path(name).name in output or rows(folder) == rows(source) else "no word"
            elif code == 0:
                problem = different(r.reference(), folder)
            else:
                problem = refused(code, output, Path(name).name)
        else:
            photo = r.reference() / "images" / "chelsea_degraded.png"
            code, output = r.run("restore", folder, photo, folder / "out.png")
            problem = refused(code, output, name)
        r.round(what, problem)
        shutil.rmtree(folder, ignore_errors=True)


def _damage(path: Path, r: Rounds) -> str:
    content, how = bytearray(path.read_bytes()), r.random.choice(("cut", "flipped", "empty", "garbage"))
    place = r.random.randrange(max(len(content), 1))
    if how == "cut":
        content = content[:place]
    elif how == "flipped":
        content[place] ^= 1 << r.random.randrange(8)
    elif how == "empty":
        content.clear()
    else:
        content[:] = r.random.randbytes(len(content))
    path.write_bytes(content)
    return how


# --- full disks ---------------------------------------------------------------------------------------------


def disk(r: Rounds, rounds: int) -> None:
    """A small disk that is full at some moment: one message with numbers, nothing half, and with room it
    works."""
    places = (_full_run, _full_wandb, _full_store, _full_export, _full_restore)
    model = r.model()
    for number in range(rounds):
        place = places[number % len(places)]
        least, most = {_full_restore: (12, 60), _full_export: (60, 160)}.get(place, (300, 6000))
        kibibytes = r.random.randint(least, most)
        with _small_disk(r.work / "disk", kibibytes) as folder:
            if folder is None:
                r.not_tried("a tmpfs cannot be mounted here (it takes root and the right to mount)")
                return
            words, environment = place(r, folder, model)
            code, output = r.run(*words, **environment)
            problem = None
            if code:
                # a photo that cannot be written is named, and the others go on: exit 1
                code_of_all = 2 if place is _full_restore and code == 1 else code
                problem = refused(code_of_all, output, "room", "space left") or leftovers(folder / "run")
            subprocess.run(["mount", "-o", "remount,size=200m", str(folder)], check=True)
            if words[0] == "train" and (folder / "run" / "run.json").exists():
                words = ["train", f"resume={folder / 'run'}"]
            after, output = r.run(*words, **environment)
            if after:
                problem = problem or f"with room: {tail(output)}"
        r.round(f"{place.__name__[1:]} on {kibibytes} KiB (exit {code})", problem)


def _full_run(r: Rounds, folder: Path, model: Path) -> tuple[list[Any], dict[str, str]]:
    larger = ["network.channels=48", "network.depth=5", "trainer.max_steps=40"]
    return ["train", *QUICK, *larger, f"hydra.run.dir={folder}/run"], {}


def _full_wandb(r: Rounds, folder: Path, model: Path) -> tuple[list[Any], dict[str, str]]:
    words, _ = _full_run(r, folder, model)
    return [*words, "logger.mode=offline"], {"WANDB_MODE": "offline"}


def _full_store(r: Rounds, folder: Path, model: Path) -> tuple[list[Any], dict[str, str]]:
    return ["prepare", "data=sample", f"data_dir={folder}/data"], {"RESTORA_DATA": f"{folder}/data"}


def _full_export(r: Rounds, folder: Path, model: Path) -> tuple[list[Any], dict[str, str]]:
    (folder / "filler").write_bytes(bytes(40_000))
    return ["export", r.reference(), folder / "model"], {}


def _full_restore(r: Rounds, folder: Path, model: Path) -> tuple[list[Any], dict[str, str]]:
    return ["restore", model, r.reference() / "images", folder / "out", "--skip-existing"], {}


@contextlib.contextmanager
def _small_disk(folder: Path, kibibytes: int) -> Iterator[Path | None]:
    folder.mkdir(exist_ok=True)
    words = ["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(words, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    try:
        yield folder if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=False)


# --- servers ------------------------------------------------------------------------------------------------


def servers(r: Rounds, rounds: int) -> None:
    """W&B and downloads from servers that hang, close, fail or send garbage."""
    r.reference()
    for number in range(rounds):
        if number % 2:
            _download(r)
        else:
            _wandb(r, r.work / f"online{number}")


def _wandb(r: Rounds, folder: Path) -> None:
    mode = r.random.choice(("503", "close", "hang", "garbage"))
    moment = r.random.uniform(0.0, 1.2) * r.seconds()
    with WandbServer() as server:
        timer = threading.Timer(moment, lambda: setattr(server, "mode", mode))
        timer.start()
        key = {"WANDB_API_KEY": "0123456789" * 4, "WANDB_BASE_URL": server.url, "WANDB_MODE": "online"}
        started = time.monotonic()
        code, output = r.run("train", *QUICK, "logger.mode=online", f"hydra.run.dir={folder}", **key)
        spent = time.monotonic() - started
        timer.cancel()
    problem = tail(output) if code else different(r.reference(), folder)
    gap = 0.0 if code else _longest_stall(folder)
    if problem is None and gap > 5 + _longest_stall(r.reference()):
        problem = f"training stood still for {gap:.1f} s"
    if problem is None and spent > 100 + 3 * r.seconds():
        problem = f"it took {spent:.0f} s"
    key_found = [
        path for path in folder.rglob("*.json") if "0123456789" * 4 in path.read_text(errors="replace")
    ]
    problem = problem or (f"the key is in {key_found[0].name}" if key_found else None)
    r.round(f"W&B, {mode} after {moment:.1f} s, longest stall {gap:.1f} s", problem)
    shutil.rmtree(folder, ignore_errors=True)


def _longest_stall(folder: Path) -> float:
    """Seconds between two rows of metrics.csv; every tenth step has one."""
    with (folder / "metrics.csv").open(newline="") as file:
        seconds = [float(row["seconds"]) for row in csv.DictReader(file)]
    return max((after - before for before, after in itertools.pairwise(seconds)), default=0.0)


def _download(r: Rounds) -> None:
    from restora.data.archives import Archive
    from restora.data.download import Patience, obtain
    from restora.photos.errors import DataError

    body = zipped({f"photos/{number}.png": r.random.randbytes(50_000) for number in range(8)})
    plans = [
        r.random.choice(
            (
                Plan(cut=r.random.randrange(len(body))),
                Plan(cut=r.random.randrange(len(body)), stall=2.0),
                Plan(status=r.random.choice((429, 500, 502, 503))),
                Plan(flip=r.random.randrange(len(body))),
                Plan(whole=True, cut=r.random.randrange(len(body))),
            )
        )
        for _ in range(r.random.randint(1, 4))
    ]
    archive = Archive("photos.zip", "photos", len(body), hashlib.sha256(body).hexdigest())
    patience = Patience(timeout=0.5, attempts=3, pause=0.01)
    root = r.work / "downloads"
    problem, commands = None, 0
    with ArchiveServer({"photos.zip": body}, plans=plans) as server:
        for commands in range(1, 4):  # noqa: B007 -- the same command again
            try:
                folder = obtain(archive, url=f"{server.url}/photos.zip", root=root, patience=patience)
            except DataError as error:
                problem = str(error)
                continue
            except Exception as error:
                problem = f"{type(error).__name__}: {error}"
                break
            found = {path.name: path.read_bytes() for path in folder.iterdir()}
            with zipfile.ZipFile(io.BytesIO(body)) as wanted:
                same = all(found.get(Path(n).name) == wanted.read(n) for n in wanted.namelist())
            problem = None if same and len(found) == 8 else "other photos"
            break
    listed = ", ".join(str({k: v for k, v in vars(plan).items() if v}) for plan in plans)
    r.round(f"download, {listed}, {commands} commands", problem)
    shutil.rmtree(root, ignore_errors=True)


# --- numbers ------------------------------------------------------------------------------------------------


def poison(r: Rounds, rounds: int) -> None:
    """NaN or infinity in photos, loss or gradients at random steps: left out and named, or one message."""
    for number in range(rounds):
        folder = r.work / f"poison{number}"
        what = r.random.choice(("degraded", "clean", "loss", "gradient"))
        value = r.random.choice(("nan", "inf", "-inf"))
        then, patience = r.random.choice(("back", "stop")), r.random.randint(2, 5)
        first = r.random.randint(2, 100)
        steps = sorted(
            {first + offset for offset in range(r.random.randint(1, 6))}
            | {r.random.randrange(150) for _ in range(r.random.randint(0, 4))}
        )
        fault = (
            f"+callbacks.fault={{_target_:fault_callbacks.Poison,what:{what},value:{value},steps:{steps}}}"
        )
        words = [*QUICK, fault.replace(" ", ""), f"callbacks.non_finite.patience={patience}"]
        gan = r.random.random() < 0.3
        if gan:
            words = [word for word in words if not word.startswith("network.depth")]
            words += [
                "network=msrresnet_small", "network.scale=1", "network.blocks=1", "family=gan",
                "discriminator@objective.adversarial.discriminator=patch_small", "data.patch_size=32",
            ]  # fmt: skip
        code, output = r.run("train", *words, f"callbacks.non_finite.then={then}", f"hydra.run.dir={folder}")
        runs = max(_runs_of(steps, 150))
        path = folder / "poison.jsonl"
        named = [json.loads(line)["step"] for line in path.read_text().splitlines()] if path.exists() else []
        if runs >= patience and then == "stop":
            problem = refused(code, output, "in a row were not finite")
        elif code:
            problem = tail(output)
        else:
            problem = None if named == steps else f"named {named}, poisoned {steps}"
        for checkpoint in folder.rglob("*.ckpt"):
            state = torch.load(checkpoint, weights_only=True)["state_dict"]
            if not all(v.isfinite().all() for v in state.values() if v.is_floating_point()):
                problem = f"{checkpoint.name} is not finite"
        what = f"{what} {value} at {steps}, {then} after {patience}{', GAN' if gan else ''}"
        r.round(f"{what} (exit {code})", problem)
        shutil.rmtree(folder, ignore_errors=True)


def _runs_of(steps: list[int], end: int) -> Iterator[int]:
    length = 0
    for step in range(end + 1):
        length = length + 1 if step in steps else 0
        yield length


# --- strangers ----------------------------------------------------------------------------------------------


class Runs:
    """An object whose unpickling leaves a mark."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return exec, (f"open({str(self.marker)!r}, 'w')",)


def strangers(r: Rounds, rounds: int) -> None:
    """Files that want to run code, that claim absurd sizes, and texts that are markup."""
    tries = (_pickled, _targets, _absurd, _override)
    for number in range(rounds):
        folder, marker = r.work / f"stranger{number}", r.work / f"ran{number}"
        what, words = tries[number % len(tries)](r, folder, marker)
        started = time.monotonic()
        code, output = r.run(*words)
        problem = None
        if marker.exists():
            problem = "code ran"
        elif "Traceback (most" in output:
            problem = f"a traceback: {tail(output)}"
        elif code not in (0, 1, 2):
            problem = f"exit {code}: {tail(output)}"
        elif time.monotonic() - started > 60 + 5 * r.seconds():
            problem = f"it took {time.monotonic() - started:.0f} s"
        r.round(f"{what} (exit {code})", problem)
        shutil.rmtree(folder, ignore_errors=True)


def _stopped(r: Rounds, folder: Path) -> dict[str, Any]:
    """A copy of the undisturbed run that says it was stopped; its record."""
    shutil.copytree(r.reference(), folder)
    record = record_of(folder) | {"status": "stopped"}
    (folder / "run.json").write_text(json.dumps(record))
    return record


def _pickled(r: Rounds, folder: Path, marker: Path) -> tuple[str, list[Any]]:
    _stopped(r, folder)
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
    record = _stopped(r, folder)
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
    record = _stopped(r, folder)
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


# --- memory -------------------------------------------------------------------------------------------------


def memory(r: Rounds, rounds: int) -> None:
    """Limits on addresses: a training says what to lower; a photo of 100 megapixels is restored in tiles."""
    r.reference()
    photo = r.work / "large.png"
    for number in range(rounds):
        if number % 2 == 0:
            batch, limit = r.random.randint(300, 900), r.random.randint(5, 7)
            words = [
                "data.patch_size=256",
                f"data.batch_size={batch}",
                f"hydra.run.dir={r.work}/large{number}",
            ]
            code, output = r.run_limited(limit << 30, "train", *QUICK, *words)
            r.round(f"a batch of {batch} in {limit} GiB", refused(code, output, "data.batch_size"))
            continue
        if not photo.exists():
            Image.effect_noise((10_000, 10_000), 40).convert("RGB").save(photo, compress_level=1)
        tile, limit = r.random.choice((256, 384, 512)), r.random.randint(10, 14)
        words = ["restore", r.model(), photo, r.work / "restored.png", "--tile", tile]
        code, output = r.run_limited(limit << 30, *words)
        problem = tail(output) if code else None
        if problem is None and Image.open(r.work / "restored.png").size != (10_000, 10_000):
            problem = "another size"
        r.round(f"100 megapixels in tiles of {tile} in {limit} GiB", problem)


KINDS = {
    "kills": (kills, 50),
    "files": (files, 22),
    "disk": (disk, 10),
    "servers": (servers, 8),
    "poison": (poison, 10),
    "strangers": (strangers, 24),
    "memory": (memory, 2),
}
"""Each with its rounds."""
assert os.name == "posix"
