"""A checkpoint becomes a model folder, or nothing does.

Everything is written to a temporary folder beside the destination, read back from there as a stranger would
read it, compared with the checkpoint on real photos, and only then renamed into place.
"""

import glob
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from restora import registry
from restora.artifact import onnx_model, parity
from restora.artifact.card import write_card
from restora.artifact.checkpoint import Source, checkpoint_network, read_checkpoint
from restora.artifact.model_folder import (
    DESCRIPTION,
    ONNX,
    ModelDescription,
    file_digests,
    network_node,
    save_weights,
    write_description,
)
from restora.artifact.restorer import Restorer, prepare_network
from restora.artifact.sources import Loaded
from restora.networks.base import Network
from restora.networks.layers.local_converter import convert

Say = Callable[[str], None]
_ASIDE = "model that is being replaced"


class ParityError(RuntimeError):
    """The exported model does not compute what the checkpoint computes."""


def describe(source: Source, checkpoint: dict[str, Any], network: Network) -> ModelDescription:
    """model.json's content, before anything was measured."""
    ours = checkpoint["restora"]
    test = {name: value for name, value in (source.record.get("test") or {}).items() if name != "images"}
    metrics = {"step": ours.get("step"), "validation": ours.get("metrics") or {}}
    if test:
        metrics["held_out"] = test | {"photos": len(source.record["test"].get("images") or [])}
    return ModelDescription(
        name=str(ours.get("name") or source.record.get("name") or source.checkpoint.stem),
        task=str(ours["task"]),
        family=str(ours["family"]),
        network={"name": registry.name_of(type(network)), "arguments": network_node(ours["network"])[1]},
        scale=network.scale,
        in_channels=network.in_channels,
        out_channels=network.out_channels,
        condition_channels=network.condition_channels,
        size_multiple=network.size_multiple,
        evaluation=dict(ours.get("evaluation") or {"local_converter": None}),
        degradation=registry.stored(ours.get("degradation") or {}, "degradation"),
        data=_training_data(source),
        init=_began(source),
        metrics=metrics,
        plugins=[str(module) for module in ours.get("plugins") or []],
        versions=_versions(),
    )


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "restora": version("restora"),
    }


def _began(source: Source) -> dict[str, Any]:
    """What the run started from, where it was given weights; a file or folder by its last name only."""
    init = source.record.get("init")
    if not isinstance(init, dict) or not init.get("source"):
        return {}
    named = str(init["source"])
    short = Path(named).name if os.path.isabs(named) else named
    return {"source": short} | {key: init.get(key) for key in ("sha256", "taken", "of")}


def _training_data(source: Source) -> dict[str, Any]:
    """Which photos the run learnt from, as its configuration says, and which near-duplicates of them were
    found; folders by their last name only."""
    data = (source.record.get("config") or {}).get("data") or {}
    origin = data.get("source") or {}
    said = {
        name: Path(value).name if isinstance(value, str) and os.path.isabs(value) else value
        for name, value in origin.items()
    }
    if not said:
        return {}
    return {"source": said, "channels": data.get("channels"), "leakage": source.record.get("leakage")}


def export_model(
    source: Source | Loaded,
    output: Path,
    *,
    photos: Sequence[Path] = (),
    with_onnx: bool = True,
    say: Say = lambda _: None,
) -> ModelDescription:
    """Write the model folder `output` from a checkpoint, or from another source of a model that is opened.

    Returns its description with the measured parity.

    `photos` are what parity is measured on; without any, the run's degraded held-out photos, or else
    scikit-image's sample photos. An older model folder at `output` is replaced, any other folder that is not
    empty is refused. Raises ParityError when a difference exceeds 1e-4 on the [0,1] scale; `output` is then
    as it was.
    """
    output = Path(os.path.abspath(output))
    if output.exists() and not (output / DESCRIPTION).is_file() and not _is_empty_folder(output):
        raise ValueError(f"{output} exists and is not a model folder: name another one")
    if isinstance(source, Loaded):
        network, run = source.network, None
        description = replace(source.description, versions=_versions(), parity={}, sha256={})
    else:
        checkpoint = read_checkpoint(source.checkpoint)
        network, run = checkpoint_network(checkpoint, str(source.checkpoint)), source.run
        description = describe(source, checkpoint, network)
    samples = parity.read_samples(photos or parity.degraded_photos_of(run) or parity.sample_photos(), network)
    output.parent.mkdir(parents=True, exist_ok=True)
    _clear_remains(output)
    draft = Path(tempfile.mkdtemp(prefix=_drafts_of(output) + f"{os.getpid()}-", dir=output.parent))
    try:
        description = _write(draft, description, network, samples, with_onnx, say)
        write_card(draft, description)
        draft.chmod(0o755)  # mkdtemp makes it private
        _put_in_place(draft, output)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return description


def _write(
    draft: Path,
    description: ModelDescription,
    network: Network,
    samples: list[parity.Sample],
    with_onnx: bool,
    say: Say,
) -> ModelDescription:
    """Fill `draft` and measure it against the checkpoint's network; raises ParityError."""
    save_weights(network, draft)
    write_description(draft, description)
    reference = _reference(network, description)
    loaded = Restorer.load(draft, device="cpu").network
    figures: dict[str, Any] = {"tolerance": parity.TOLERANCE, "photos": parity.described(samples)}
    figures["checkpoint_max_difference"] = parity.largest_difference(reference, loaded, samples)
    _hold_against("model folder", figures["checkpoint_max_difference"], say)
    figures["onnx_max_difference"] = (
        _write_onnx(draft, description, network, samples, say) if with_onnx else None
    )
    description = replace(description, parity=figures, sha256=file_digests(draft))
    write_description(draft, description)
    return description


def _reference(network: Network, description: ModelDescription) -> Network:
    """The checkpoint's network as validation ran it: with the local converter if the run used it, nothing
    folded."""
    if description.local_converter is None:
        return network
    return convert(network, train_size=description.local_converter)


def _write_onnx(
    draft: Path, description: ModelDescription, network: Network, samples: list[parity.Sample], say: Say
) -> float | None:
    """Write and measure model.onnx; None, with a word, where the packages for it are not installed."""
    missing = onnx_model.missing_packages()
    if missing:
        say(f"not exported to ONNX: {', '.join(missing)} not installed (pip install 'restora[onnx]')")
        return None
    prepared = prepare_network(network, description.local_converter)
    onnx_model.write_onnx(prepared, draft / ONNX, local_converter=description.local_converter)
    graph = onnx_model.OnnxModel(draft / ONNX)

    def run_graph(x: torch.Tensor, condition: torch.Tensor | None) -> torch.Tensor:
        return torch.from_numpy(graph(x.numpy(), None if condition is None else condition.numpy()))

    difference = parity.largest_difference(_reference(network, description), run_graph, samples)
    _hold_against("ONNX graph", difference, say)
    return difference


def _hold_against(what: str, difference: float, say: Say) -> None:
    if not difference <= parity.TOLERANCE:
        raise ParityError(
            f"the {what} differs from the checkpoint by up to {difference:.2e} on real photos; "
            f"at most {parity.TOLERANCE:.0e} is allowed"
        )
    say(f"{what} against checkpoint: largest difference {difference:.1e}")


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _drafts_of(output: Path) -> str:
    """How the names of this machine's drafts of a model folder begin; the process follows."""
    return f".{output.name}.{platform.node()}-"


def _clear_remains(output: Path) -> None:
    """Removes what killed exports left beside `output`, and puts back the folder that one had moved aside."""
    prefix = _drafts_of(output)
    for remains in output.parent.glob(f"{glob.escape(prefix)}*"):
        process = remains.name.removeprefix(prefix).partition("-")[0]
        if not process.isdigit() or Path("/proc", process).exists():
            continue
        if (remains / _ASIDE).is_dir() and not output.exists():
            (remains / _ASIDE).rename(output)
        shutil.rmtree(remains, ignore_errors=True)


def _put_in_place(draft: Path, output: Path) -> None:
    """Rename `draft` to `output`; a folder that stands there is moved aside first and removed afterwards."""
    if not output.exists():
        draft.rename(output)
        return
    aside = Path(tempfile.mkdtemp(prefix=_drafts_of(output) + f"{os.getpid()}-", dir=output.parent))
    output.rename(aside / _ASIDE)
    try:
        draft.rename(output)
    except OSError:
        (aside / _ASIDE).rename(output)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
