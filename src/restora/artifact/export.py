"""Exports a checkpoint as a model folder, whole or not at all.

Everything is written to a temporary folder beside the destination, read back from there as any user would
read it, compared with the checkpoint on real photos, and only then renamed into place. A further format that
does not compute the same, or cannot be written, is left out; if the weights do not, no model folder is made.
"""

import glob
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from restora import registry
from restora.artifact import measuring, parity
from restora.artifact.card import write_card
from restora.artifact.checkpoint import Source, checkpoint_network, read_checkpoint
from restora.artifact.foreign import opened_elsewhere
from restora.artifact.formats import FILES, FORMATS, Format
from restora.artifact.model_folder import (
    CARD,
    DESCRIPTION,
    WEIGHTS,
    ModelDescription,
    file_digests,
    network_node,
    save_weights,
    write_description,
)
from restora.artifact.prepared import prepare_network
from restora.artifact.restorer import Restorer
from restora.artifact.sources import Loaded
from restora.artifact.writing import Writer, opened
from restora.files import check_writable, is_running
from restora.networks.base import Network
from restora.networks.layers.local_converter import convert
from restora.words import counted

Say = Callable[[str], None]
_ASIDE = "model that is being replaced"


class ParityError(RuntimeError):
    """The exported model does not compute what the checkpoint computes."""


def describe(source: Source, checkpoint: dict[str, Any], network: Network) -> ModelDescription:
    """model.json's content, before anything was measured."""
    ours = checkpoint["restora"]
    test = {name: value for name, value in (source.record.get("test") or {}).items() if name != "images"}
    metrics = {"step": ours.get("step"), "validation": ours.get("metrics") or {}}
    if (reference := ours.get("reference")) is not None:
        metrics["reference"] = reference
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
        frames=network.frames,
        versions=_versions(),
    )


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "restora": version("restora"),
    }


def _began(source: Source) -> dict[str, Any]:
    """The weights that the run started from, if any; a file or folder by its last name only."""
    init = source.record.get("init")
    if not isinstance(init, dict) or not init.get("source"):
        return {}
    named = str(init["source"])
    short = Path(named).name if os.path.isabs(named) else named
    return {"source": short} | {key: init.get(key) for key in ("sha256", "taken", "of")}


def _training_data(source: Source) -> dict[str, Any]:
    """The run's training photos by its configuration, and the near-duplicates of them that were found.

    Folders are given by their last name only.
    """
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
    wanted: Sequence[str] = ("onnx",),
    say: Say = lambda _: None,
    begin: Say = lambda _: None,
) -> ModelDescription:
    """Writes the model folder `output` from a checkpoint, or from another opened source of a model.

    `say` gets a line about each thing that is done, `begin` what takes time as it begins.

    Returns its description with the measurements: `parity["formats"]`, and in `parity["left_out"]` the reason
    for each missing format of `wanted`.

    Parity is measured on the run's held-out photos and on `photos`; without any, on scikit-image's sample
    photos. An older model folder at `output` is replaced; one with other files in it, and any other folder
    that is not empty, is refused.
    Raises ParityError when the weights' difference exceeds 1e-4 on the [0,1] scale; `output` then stays as it
    was.
    """
    output = Path(os.path.abspath(output))
    for folder in (output, output.parent):  # drafts are beside it
        check_writable(folder, setting="OUTPUT", folder=True)
    if output.exists() and not (output / DESCRIPTION).is_file() and not _is_empty_folder(output):
        raise ValueError(f"{output} exists and is not a model folder: name another one")
    older = {path.name for path in output.iterdir()} if output.is_dir() else set()
    if own := older - {DESCRIPTION, WEIGHTS, CARD, *FILES}:
        raise ValueError(
            f"{output} has files that are not of the model and would be lost: {', '.join(sorted(own)[:3])}; "
            "move them away or name another folder"
        )
    if isinstance(source, Loaded):
        network, run = source.network, None
        description = replace(source.description, versions=_versions(), parity={}, sha256={})
    else:
        checkpoint = read_checkpoint(source.checkpoint)
        network, run = checkpoint_network(checkpoint, str(source.checkpoint)), source.run
        description = describe(source, checkpoint, network)
    at_most = parity.PHOTOS_AT_MOST
    files = [*parity.degraded_photos_of(run)[:at_most], *photos[:at_most]] or parity.sample_photos()
    samples = parity.read_samples(files, network, description.undoes)
    output.parent.mkdir(parents=True, exist_ok=True)
    _clear_remains(output)
    draft = Path(tempfile.mkdtemp(prefix=_drafts_of(output) + f"{os.getpid()}-", dir=output.parent))
    try:
        folder = draft / output.name
        folder.mkdir()
        description = _write(folder, description, network, samples, wanted, say, begin)
        write_card(folder, description)
        if lost := sorted(older - {path.name for path in folder.iterdir()}):
            say(f"the older model is replaced, and its {', '.join(lost)} removed: see --format")
        _put_in_place(folder, output)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return description


def _write(
    draft: Path,
    description: ModelDescription,
    network: Network,
    samples: list[parity.Sample],
    wanted: Sequence[str],
    say: Say,
    begin: Say,
) -> ModelDescription:
    """Fills `draft` and compares it with the checkpoint's network; raises ParityError."""
    name, given = network_node(description.network)
    published, arguments = network.as_published(given)
    description = replace(description, network={"name": name, "arguments": arguments})
    save_weights(published, draft, description)
    write_description(draft, description)
    begin(f"checking {WEIGHTS}")
    reference = parity.outputs(_reference(network, description), samples)
    say(f"{WEIGHTS}: checked on {counted(len(samples), 'photo')}")

    def by_torch() -> parity.Compute:
        return Restorer.load(draft, device="cpu").network

    loaded = by_torch()
    difference = parity.compare(reference, parity.outputs(loaded, samples), samples)
    if not difference.largest <= parity.TOLERANCE:
        raise ParityError(
            f"the model folder differs from the checkpoint by up to {difference.largest:.2e} on real photos; "
            f"at most {parity.TOLERANCE:.0e} is allowed"
        )
    sides = measuring.sides_for(loaded, network)
    side = sides[-1]
    taken = measuring.megabytes(by_torch, network, side)
    rows = {"safetensors": _row((WEIGHTS,), "torch", difference, taken, draft)}
    computes: dict[str, parity.Compute] = {"safetensors": loaded}
    left_out: dict[str, str] = {}
    prepared = prepare_network(network, description.local_converter)
    converter = description.local_converter
    with Writer(prepared, draft, local_converter=converter, photos=samples) as writer:
        for name in wanted:
            begin(f"writing and checking {FORMATS[name].files[0]}")
            try:
                rows[name], computes[name] = _further(name, writer, draft, network, reference, samples, side)
            except LeftOut as reason:
                left_out[name] = str(reason)
            say(f"{FORMATS[name].files[0]}: {'left out' if name in left_out else 'written and checked'}")
    paces = {}
    for each in sides:
        begin(f"measuring the speed for {each}x{each} pixels")
        paces[each] = measuring.paces(computes, network, each)
    for name, row in rows.items():
        row["seconds_per_megapixel"] = paces[side][name]
        row["seconds_per_megapixel_by_side"] = {str(each): paces[each][name] for each in sides}
    begin("trying the weights in other programs")
    elsewhere = opened_elsewhere(draft / WEIGHTS, reference, samples, converted=converter is not None)
    say(f"in other programs: {elsewhere['words']}")
    figures: dict[str, Any] = {
        "tolerance": parity.TOLERANCE,
        "photos": parity.described(samples),
        "checkpoint_max_difference": difference.largest,
        "onnx_max_difference": rows["onnx"]["max_difference"] if "onnx" in rows else None,
        "machine": {"cpu": measuring.processor(), "threads": torch.get_num_threads(), "side": side},
        "formats": rows,
        "left_out": left_out,
        "elsewhere": elsewhere,
    }
    description = replace(description, parity=figures, sha256=file_digests(draft))
    write_description(draft, description)
    return description


class LeftOut(Exception):
    """Why a format is not in the folder."""


def _further(
    name: str,
    writer: Writer,
    draft: Path,
    network: Network,
    reference: list[torch.Tensor],
    samples: list[parity.Sample],
    side: int,
) -> tuple[dict[str, Any], parity.Compute]:
    """The measurements of a further format, and what runs it. Raises LeftOut after removing its files."""
    made = FORMATS[name]
    if made.missing:
        raise LeftOut(f"{', '.join(made.missing)} not installed (pip install 'restora[{made.extra}]')")
    try:
        writer.write(name)
        compute = opened(name, draft)
        difference = parity.compare(reference, parity.outputs(compute, samples), samples)
        taken = measuring.megabytes(lambda: opened(name, draft), network, side)
        reason = _too_far(made, difference)
    except Exception as error:  # each converter fails in its own ways; the others go on
        reason = _in_a_line(error)
    if reason:
        for file in made.files:
            (draft / file).unlink(missing_ok=True)
        raise LeftOut(reason)
    return _row(made.files, made.engine, difference, taken, draft), compute


def _in_a_line(error: BaseException) -> str:
    """The innermost error in one line: converters wrap it in messages of their own, some in colour."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
    return f"{type(error).__name__}: {text.partition(chr(10))[0]:.200}"


def _too_far(made: Format, difference: parity.Difference) -> str:
    """Why a format does not count as the same model; empty where it does."""
    if not difference.loss <= made.loss:
        return f"it loses {difference.loss:.3g} dB, at most {made.loss:g} are allowed"
    if made.exact and not difference.largest <= parity.TOLERANCE:
        return f"it differs by up to {difference.largest:.1e}, at most {parity.TOLERANCE:.0e} is allowed"
    return ""


def _row(
    files: Sequence[str],
    engine: str,
    difference: parity.Difference,
    taken: float | None,
    draft: Path,
) -> dict[str, Any]:
    """The entry of a format in model.json, without its pace."""
    return {
        "files": list(files),
        "engine": engine,
        "psnr": difference.psnr,
        "loss": difference.loss,
        "max_difference": difference.largest,
        "peak_megabytes": taken,
        "file_megabytes": sum((draft / file).stat().st_size for file in files) / 1e6,
    }


def _reference(network: Network, description: ModelDescription) -> Network:
    """The checkpoint's network as in validation: with the run's local converter, if any, nothing folded."""
    if description.local_converter is None:
        return network
    return convert(network, train_size=description.local_converter)


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _drafts_of(output: Path) -> str:
    """The prefix of this machine's drafts of a model folder; the process number follows."""
    return f".{output.name}.{platform.node()}-"


def _clear_remains(output: Path) -> None:
    """Removes what killed exports left beside `output`, and puts back the folder that one had moved aside."""
    prefix = _drafts_of(output)
    for remains in output.parent.glob(f"{glob.escape(prefix)}*"):
        process = remains.name.removeprefix(prefix).partition("-")[0]
        if not process.isdigit() or is_running(int(process)):
            continue
        if (remains / _ASIDE).is_dir() and not output.exists():
            (remains / _ASIDE).rename(output)
        shutil.rmtree(remains, ignore_errors=True)


def _put_in_place(draft: Path, output: Path) -> None:
    """Renames `draft` to `output`; an existing folder is moved aside first and removed afterwards."""
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
