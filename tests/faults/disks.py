"""What lies on disks: files that were damaged, and disks that are full."""

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rounds import MODEL_FILES, QUICK, Rounds, different, leftovers, record_of, refused, rows, tail

FILES = (
    "checkpoints/last.ckpt", "checkpoints/previous.ckpt", "checkpoints/best.ckpt", "run.json", "metrics.csv",
    ".hydra/overrides.yaml", ".hydra/config.yaml",
)  # fmt: skip

# --- damaged files ---


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


# --- full disks ---


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
