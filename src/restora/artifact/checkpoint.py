"""Finds the checkpoint that a run is evaluated by, and reads its network without lightning.

A checkpoint is a Lightning file whose `state_dict` holds `network.*` (the weights being trained) and usually
`ema.*` (their running average, which is what validation scored); `checkpoint["restora"]` says which network
they belong to. Files are read with torch's weights-only reader: nothing that a file contains is executed.
"""

import pickle
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import torch
from torch import Tensor

from restora.artifact.model_folder import build_network, network_node
from restora.files import check_archive, read_json
from restora.networks.adapters import merged
from restora.networks.base import Network
from restora.networks.weights import WeightsError
from restora.walking import files_below

READABLE = (1, 2)
RECORD = "run.json"


@dataclass(frozen=True)
class Source:
    """A checkpoint, and the run folder and run record that it came from, if there are any."""

    checkpoint: Path
    run: Path | None
    record: dict[str, Any]


def read_record(run: Path) -> dict[str, Any]:
    """`run`/run.json. Raises ValueError when it is missing, half-written or not an object."""
    path = run / RECORD
    try:
        record = read_json(path)
    except FileNotFoundError as error:
        raise ValueError(f"{run} is not a run folder: it has no run.json") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if not isinstance(record, dict):
        raise ValueError(f"{path} must hold a JSON object, got {type(record).__name__}")
    return record


def locate(run_or_checkpoint: str | Path) -> Source:
    """The checkpoint of a run folder, or the checkpoint file itself.

    For a folder this is the best one, or the last if there is no best.
    """
    path = Path(run_or_checkpoint)
    if path.is_file():
        run = path.resolve().parent.parent
        if (run / "run.json").is_file():
            return Source(path, run, read_record(run))
        return Source(path, None, {})
    if not path.is_dir():
        raise ValueError(f"there is no run folder or checkpoint {path}")
    record = read_record(path)
    listed = record.get("checkpoints") or {}
    if not isinstance(listed, dict):
        raise ValueError(f"{path / 'run.json'}: checkpoints must be a JSON object, it is {listed!r:.40}")
    for name in ("best", "last"):
        candidates = [listed.get(name), f"checkpoints/{name}.ckpt"]
        for candidate in candidates:
            if candidate and (path / inside(path, candidate)).is_file():
                return Source(path / candidate, path, record)
    raise ValueError(
        f"run {path} (status: {record.get('status', 'unknown')}) has no checkpoint: train it first"
    )


def inside(folder: Path, recorded: Any) -> str:
    """A relative path that a file of `folder` names. Raises ValueError for one that leads out of it."""
    path = PurePath(str(recorded))
    if path.is_absolute() or ".." in path.parts or "\0" in str(recorded):
        raise ValueError(f"{folder / 'run.json'} names {recorded!r}, which is outside the folder: refused")
    return str(path)


def find_runs(folder: str | Path) -> list[Path]:
    """All run folders at or below `folder`, sorted."""
    return sorted(path.parent for path in files_below(folder) if path.name == "run.json")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The checkpoint as a dictionary, whole and one of ours. Raises ValueError otherwise."""
    check_archive(path)
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} cannot be read as a checkpoint: it is damaged, or holds Python objects, which are never "
            "loaded from a file"
        ) from error
    except (RuntimeError, EOFError, OSError, LookupError, ValueError, TypeError, AttributeError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"{path} cannot be read as a checkpoint: {first}") from error
    ours = checkpoint.get("restora") if isinstance(checkpoint, dict) else None
    if not isinstance(ours, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        raise ValueError(
            f"{path} was not written by `restora train`: it has no 'restora' entry that names the network"
        )
    if ours.get("format") not in READABLE:
        raise ValueError(
            f"{path} has format {ours.get('format')!r}, this version of restora reads {READABLE}"
        )
    return checkpoint


def checkpoint_weights(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """The network's weights under their own names: the averaged ones, if any, else the raw ones.

    Adapters are added to the weights that they belong to.
    """
    state: dict[str, Tensor] = checkpoint["state_dict"]
    for prefix in ("ema.", "network."):
        weights = {
            name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)
        }
        if weights:
            return merged(weights)
    raise ValueError(f"the checkpoint holds no 'ema.*' or 'network.*' weights, only {sorted(state)[:3]}…")


def checkpoint_network(checkpoint: dict[str, Any], where: str) -> Network:
    """The network of a checkpoint with its weights, in evaluation mode on the CPU.

    Raises ValueError that names the checkpoint, `where`.
    """
    try:
        network = build_network(
            *network_node(checkpoint["restora"].get("network")),
            checkpoint_weights(checkpoint),
            where,
            plugins=checkpoint["restora"].get("plugins") or (),
        )
    except WeightsError:
        raise
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    return network.eval()
