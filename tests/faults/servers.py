"""W&B and downloads from servers that hang, close, fail or send garbage."""

import csv
import hashlib
import io
import itertools
import shutil
import threading
import time
import zipfile
from pathlib import Path

from archive_server import ArchiveServer, Plan, zipped
from rounds import QUICK, Rounds, different, tail
from wandb_server import WandbServer


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
