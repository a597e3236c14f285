"""README.md of a model folder: what the model is, what it scored, how it is used, and what it is not for."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from restora.artifact.bounded import imagined
from restora.artifact.global_statistics import attentions
from restora.artifact.model_folder import CARD, ONNX, WEIGHTS, ModelDescription, network_class, network_node
from restora.files import json_text
from restora.vocabulary import TASKS
from restora.words import AGAINST_NOISY, NOISY_REFERENCE, three_digits, worse_than_input

CHANNELS = {1: "grey", 3: "RGB"}


def write_card(folder: Path, description: ModelDescription) -> None:
    """Writes `folder`/README.md; the folder's other files must be there already."""
    sections = [
        _head(description),
        _scores(description),
        _use(description, with_onnx=(folder / ONNX).is_file()),
        _training(description),
        _limits(description),
        _export(description),
        _licence(),
    ]
    (folder / CARD).write_text("\n\n".join(sections) + "\n", encoding="utf-8")


def _head(model: ModelDescription) -> str:
    node = network_node(model.network)
    architecture = node[1].get("architecture") or network_class(node[0]).__name__
    enlarges = f", {model.scale} times as wide and high" if model.scale > 1 else ""
    each = model.in_channels // model.frames
    takes, gives = (CHANNELS.get(n, f"{n}-channel") for n in (each, model.out_channels))
    photos, result = f"{takes} photos of any size", f"gives {gives} photos{enlarges}"
    if model.frames > 1:
        photos = f"{model.frames} {takes} frames of a video, folded into channels,"
        result = f"gives the middle one{enlarges}"
    condition = {
        "nothing": "",
        "noise level": " It is conditioned on the noise level.",
        "mask": " It is conditioned on a mask: 1 where a pixel is known, 0 where it is lost.",
        "maps": f" It is conditioned on {model.condition_channels} maps in addition to the photo.",
    }[model.conditioned_on]
    trained = "trained and " if model.family != "unknown" else "trained elsewhere and "
    return (
        f"# {model.name}\n\n"
        f"An image-restoration network{_purpose(model.task)}: {architecture} "
        f"(family `{model.family}`), {trained}exported with restora. "
        f"It takes {photos} and {result}.{condition}"
    )


def _purpose(task: str) -> str:
    if task == "unknown":
        return " of unknown task (the weights do not state it)"
    return f" that {TASKS[task]}" if task in TASKS else f" for {task}"


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _scores(model: ModelDescription) -> str:
    held_out: dict[str, Any] = model.metrics.get("held_out") or {}
    lines, reference = ["## Scores", ""], model.metrics.get("reference")
    if reference == NOISY_REFERENCE:
        lines += [f"All figures are {AGAINST_NOISY}.", ""]
    if held_out.get("psnr") is not None:
        lines += [
            f"Mean over {held_out.get('photos', '?')} held-out photos of the training run, "
            "outputs rounded to 8 bits:",
            "",
            "| | PSNR (dB) | SSIM |",
            "|---|---:|---:|",
        ]
        rows = (("degraded input", "input_psnr", "input_ssim"), ("restored", "psnr", "ssim"))
        for name, first, second in rows:
            if held_out.get(first) is not None:
                similarity = held_out.get(second)
                shown = "" if similarity is None else f"{similarity:.4f}"
                psnr = "–" if math.isinf(held_out[first]) else f"{held_out[first]:.2f}"
                lines.append(f"| {name} | {psnr} | {shown} |")
    elif held_out:
        figures = ", ".join(
            f"{name} {_number(value)}"
            for name, value in held_out.items()
            if name not in ("photos", "seconds") and value is not None
        )
        lines.append(
            f"The {held_out.get('photos', '?')} held-out photos have no clean versions, so PSNR and SSIM "
            f"were not measured{f'; {figures}' if figures else ''}."
        )
    else:
        lines.append("This model was not scored on held-out photos.")
    validation = model.metrics.get("validation") or {}
    figures = ", ".join(f"{name} {_number(value)}" for name, value in validation.items() if value is not None)
    if figures:
        lines += ["", f"Validation during training, at the exported step: {figures}."]
    scores = held_out or {name.removeprefix("val/"): value for name, value in validation.items()}
    if warning := worse_than_input(scores, reference):
        lines += ["", f"**The result is {warning}.** Photos are better left as they are."]
    return "\n".join(lines)


def _use(model: ModelDescription, *, with_onnx: bool) -> str:
    needs_level = model.conditioned_on == "noise level" and model.sigma is None
    option = " --sigma 25" if needs_level else " --mask masks/" if model.conditioned_on == "mask" else ""
    level_argument = ", sigma=25" if needs_level else ""
    given = {
        "mask": "known = torch.ones(1, 1, *photo.shape[:2])  # 0 where the photo is lost\n",
        "maps": f"maps = torch.zeros(1, {model.condition_channels}, *photo.shape[:2])  # see below\n",
    }.get(model.conditioned_on, "")
    condition = f", {given.partition(' ')[0]}" if given else ""
    command = f"""
From the command line, a photo or a folder of photos (run beside this folder, here called `model`):

```
restora restore model photos/ restored/{option}
```
"""
    channels = "L" if model.in_channels == 1 else "RGB"
    reading = (
        f'np.atleast_3d(np.asarray(Image.open("photo.png").convert("{channels}"), dtype=np.float32)) / 255'
    )
    writing = """pixels = restored[0].permute(1, 2, 0).mul(255).round().byte().squeeze(-1).numpy()
Image.fromarray(pixels).save("restored.png")"""
    if model.frames > 1:
        command = f"""
A video from the command line, beside this folder, here called `model` (needs `restora[video]`):

```
restora restore model clip.mp4 restored.mp4{option}
```
"""
        opened = f'Image.open(f"frames/{{n}}.png").convert("{"L" if model.out_channels == 1 else "RGB"}")'
        reading = f"""np.concatenate([
    np.atleast_3d(np.asarray({opened}, dtype=np.float32)) / 255
    for n in range({model.frames})  # of these the middle one is restored
], axis=2)  # float32 (H,W,{model.in_channels})"""
    elif model.in_channels not in CHANNELS or model.out_channels not in CHANNELS:
        command = ""
        reading = f'np.load("photo.npy")  # float32 (H,W,{model.in_channels}) on the [0,1] scale'
        writing = 'np.save("restored.npy", restored[0].permute(1, 2, 0).numpy())'
    text = f"""## Use
{command}
From Python, any size, tiled so that memory stays bounded:

```python
import numpy as np
import torch
from PIL import Image
from restora.artifact.restorer import Restorer

restorer = Restorer.load("model"{level_argument})
photo = {reading}
{given}restored = restorer(torch.from_numpy(photo).permute(2, 0, 1)[None]{condition})  # (1,C,H,W) in [0,1]
{writing}
```

`{WEIGHTS}` holds the parameters under the names of the architecture's published checkpoints."""
    if with_onnx:
        inputs = "`degraded`" + (" and `condition`" if model.condition_channels else "")
        meaning = {
            "noise level": " `condition` is the noise level at every pixel, one channel: σ/255.",
            "mask": " `condition` is one channel, 1 where the pixel is known and 0 where it is lost.",
        }.get(model.conditioned_on, "")
        text += (
            f"\n\n`{ONNX}` takes {inputs}, float32 (batch, channels, height, width) on the [0,1] scale, "
            f"any batch and size, and gives `restored`, to be clamped to [0,1].{meaning}"
        )
    return text


def _training(model: ModelDescription) -> str:
    return (
        "## What it was trained against\n\n"
        f"{_degradation(model)}\n\n"
        f"{_photos(model)}"
        f"{_began(model)}"
        f"The weights are those of step {model.metrics.get('step', 'unknown')}."
    )


def _degradation(model: ModelDescription) -> str:
    """The degradation of the training photos, as far as it is known."""
    if model.degradation.get("_target_") == "identity":
        return "No degradation was added: the degraded photos were used as they came."
    degradation = json_text(model.degradation) if model.degradation else "not recorded"
    return (
        "The degradation that it learnt to undo; `restora preview` shows what it does to a photo.\n\n"
        f"```json\n{degradation}\n```"
    )


def _began(model: ModelDescription) -> str:
    """The weights that training started from."""
    init = model.init
    if not init.get("source"):
        return ""
    taken = f"{init.get('taken', '?')} of {init.get('of', '?')} tensors"
    return (
        f"Training started from `{init['source']}` ({taken}; SHA-256 `{init.get('sha256', 'unknown')}`).\n\n"
    )


def _photos(model: ModelDescription) -> str:
    source = model.data.get("source")
    if not source:
        return ""
    kind = str(source.get("_target_", "unknown")).rpartition(".")[2]
    options = [
        f"{name} {value}" for name, value in source.items() if name != "_target_" and value is not None
    ]
    text = f"Photos: `{kind}`{' with ' + ', '.join(options) if options else ''}.\n\n"
    return text + _leakage(model.data.get("leakage")) + "\n\n"


def _leakage(found: Any) -> str:
    """The result of the search for test photos among the training photos."""
    words = found.get("words") if isinstance(found, dict) else None
    if not words:
        return "Whether test photos are among the training photos was not checked."
    listed = "\n".join(f"- {line}" for line in words)
    return f"Search for near-duplicates by perceptual hash, before training:\n\n{listed}"


def _limits(model: ModelDescription) -> str:
    lines = [
        "## Limits",
        "",
        "- It restores what it was trained on. On other kinds or strengths of degradation it may do little "
        "or invent detail; the scores above say nothing about them.",
        "- Restored detail is an estimate. Do not take it as evidence of what was in front of the camera.",
    ]
    if model.in_channels == 1 and model.out_channels == 1:
        lines.append(
            "- It works on one channel: `restora restore` applies it to each channel of a colour photo."
        )
    name, arguments = network_node(model.network)
    if model.local_converter is None and network_class(name).whole_photo:
        shared = bool(attentions(imagined(network_class(name), arguments)))
        lines.append(
            "- It looks at the whole photo at once, and large photos are restored in tiles: brightness may "
            "differ by a few levels from tile size to tile size. `--tile 0` restores a photo in one piece, "
            "where memory allows"
            + ("; `--global-statistics` lets tiles see the statistics of the whole photo." if shared else ".")
        )
    if model.local_converter is not None:
        lines.append(
            "- Its global pooling is replaced by local windows at test time (training "
            f"patches of {model.local_converter[0]}x{model.local_converter[1]}); it was scored that way."
        )
    return "\n".join(lines)


def _export(model: ModelDescription) -> str:
    parity = model.parity
    photos = ", ".join(f"{p['name']} {p['width']}x{p['height']}" for p in parity["photos"])
    if "formats" not in parity:  # exported by an older version
        apart = f"differed by at most {parity['checkpoint_max_difference']:.1e} from the training checkpoint"
        return f"## Checked at export\n\nThe weights {apart}, on a scale of [0,1], on: {photos}."
    lines = [
        "## Checked at export",
        "",
        "Each file was run on real photos and compared with the training checkpoint. PSNR is the mean over "
        "the photos whose clean version is known, not rounded to 8 bits. The loss is that of the worst photo "
        "(without a clean version, the loss that the difference would cause at 40 dB). The largest "
        "difference is that of any pixel, on the [0,1] scale. Time (seconds per megapixel) and peak memory "
        f"(growth of the process) are for {parity['machine']['side']}x{parity['machine']['side']} pixels on "
        f"{parity['machine']['cpu']}, threads: {parity['machine']['threads']}.",
        "",
        "| format | file | PSNR (dB) | loss (dB) | largest difference | s/MP | peak MB | file MB |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, row in parity["formats"].items():
        lines.append(f"| {name} | `{row['files'][0]}` | {' | '.join(cells(row))} |")
    lines += [f"\nLeft out: {name}: {reason}." for name, reason in parity["left_out"].items()]
    elsewhere = f"In other programs: {parity['elsewhere']['words']}."
    return "\n".join([*lines, "", f"Measured on: {photos}.", "", elsewhere])


def cells(row: Mapping[str, Any]) -> list[str]:
    """One format's figures as text: PSNR, loss, largest difference, pace, memory, size."""
    peak = row["peak_megabytes"]
    return [
        "" if row["psnr"] is None else f"{row['psnr']:.2f}",
        f"{row['loss']:.4f}",
        f"{row['max_difference']:.1e}",
        three_digits(row["seconds_per_megapixel"]),
        "" if peak is None else f"{peak:.0f}",
        f"{row['file_megabytes']:.1f}",
    ]


def _licence() -> str:
    return (
        "## Licence\n\n"
        "The code that made this folder is under Apache-2.0. The weights carry the terms of the photos they "
        "were trained on: many research data sets allow non-commercial use only. State them "
        "here before you pass the model on."
    )
