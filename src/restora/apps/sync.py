"""`restora sync`: sends runs to W&B that it has not received.

Enters: a folder with runs. Leaves: at W&B, their offline runs and the online runs that it received only in
part. W&B marks each sent run by a file beside it (`*.wandb.synced`), so that an interrupted command can be
repeated. A run that still trains is left for later.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from restora.apps.parser import Parser
from restora.connection import wandb_obstacle
from restora.files import read_json
from restora.run_state import status_of
from restora.strangers import check_inside
from restora.words import counted

_HELP = "folder of a run, of a sweep or of all runs"


@dataclass(frozen=True)
class Unsent:
    """A folder that W&B wrote, and the run that it belongs to, with its record."""

    folder: Path
    record: dict[str, Any]
    run: Path

    @property
    def identity(self) -> str:
        """The run's id at W&B, which the parts of a resumed run share."""
        return re.sub(r"^(offline-)?run-\d+_\d+-", "", self.folder.name)

    @property
    def trains(self) -> bool:
        return status_of(self.record, self.run) == "running"


def main(argv: list[str]) -> int:
    """Raises ValueError if the folder does not exist, W&B cannot be reached, or a run could not be sent."""
    parser = Parser(prog="restora sync", description="Send the W&B runs below FOLDER that were kept offline.")
    parser.add_argument(
        "folder",
        metavar="FOLDER",
        nargs="?",
        type=Path,
        default=Path("outputs"),
        help=f"{_HELP} (default: outputs)",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        metavar="S",
        default=600,
        help="seconds for one run, then the next (default: 600)",
    )
    options = parser.parse_args(argv)
    if not options.folder.is_dir():
        raise ValueError(f"there is no folder {options.folder}: name the {_HELP}")
    unsent = list(find_unsent(options.folder))
    training = [one for one in unsent if one.trains]
    todo = [one for one in unsent if not one.trains]
    for run in dict.fromkeys(one.run for one in training):
        print(f"{run} is still training: its W&B run is sent when it has ended")
    if not todo:
        print(f"nothing to send in {options.folder}")
        return 0
    if obstacle := wandb_obstacle():
        raise ValueError(f"{_in_words(todo)} cannot be sent: {obstacle}")
    if len(todo) > _runs(todo):
        print(f"{_in_words(todo)} in {len(todo)} parts")
    failed: list[Unsent] = []
    for number, one in enumerate(todo, 1):
        print(f"{number}/{len(todo)} {one.folder}: ", end="", flush=True)
        if one.identity in {part.identity for part in failed}:  # W&B would refuse the earlier part then
            problem: str | None = "left for later, after the part before it"
        else:
            problem = send(one.folder, options.timeout)
        print(problem or "sent", flush=True)
        if problem is not None:
            failed.append(one)
    if failed:
        raise ValueError(
            f"{_runs(failed)} of {_in_words(todo)} could not be sent; the same command retries what is left"
        )
    return 0


def _runs(parts: list[Unsent]) -> int:
    return len({part.identity for part in parts})


def _in_words(parts: list[Unsent]) -> str:
    return counted(_runs(parts), "W&B run")


def find_unsent(root: Path) -> Iterator[Unsent]:
    """The W&B folders below `root` that were not sent, the parts of a run in the order of their time."""
    for path in sorted(root.resolve().rglob("wandb/*run-*/*.wandb"), key=lambda path: _time(path.parent)):
        folder, run = path.parent, path.parents[2]
        if path.with_name(f"{path.name}.synced").exists():
            continue
        try:
            record = read_json(run / "run.json")
        except (OSError, ValueError, RecursionError):
            record = {}
        record = record if isinstance(record, dict) else {}
        if folder.name.startswith("run-") and _is_complete(record, folder):
            continue
        yield Unsent(folder, record, run)


def _time(folder: Path) -> str:
    """The time in the name of a folder of W&B, in which that of an offline run has another beginning."""
    return folder.name.removeprefix("offline-").removeprefix("run-")


def _is_complete(record: dict[str, Any], folder: Path) -> bool:
    """Whether W&B received all of an online run; older records do not say, and count as complete."""
    entry = record.get("wandb")
    if not isinstance(entry, dict) or Path(str(entry.get("dir"))).parent.name != folder.name:
        return False
    return bool(entry.get("complete", True))


def send(folder: Path, timeout: float) -> str | None:
    """Sends one run by W&B's own command, which marks it as sent; returns the error, or None."""
    words = [sys.executable, "-P", "-m", "wandb", "sync", "--yes", "--include-online", str(folder)]
    try:
        check_inside(folder.parent)  # W&B follows links and sends their targets
        done = subprocess.run(
            words, cwd="/", capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL
        )
    except ValueError as error:
        return str(error)
    except subprocess.TimeoutExpired:
        return f"not finished within {timeout:g} s"
    said = [_plain(line) for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    if any(folder.glob("*.wandb.synced")):
        return None
    message = next((line for line in reversed(said) if re.search(r"(?i)error|fail", line)), None)
    return message or (said[-1] if said else f"wandb sync ended with {done.returncode}")


def _plain(line: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", line).strip().removeprefix("wandb: ")
