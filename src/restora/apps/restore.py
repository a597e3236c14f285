"""`restora restore`: restores a photo, a video or a tree of them with a model or method.

Names, tree, format, bit depth, EXIF, colour profile and transparency are kept, and the sound of videos. What
cannot be restored is named and the others go on; the exit status is 0 only if all was restored completely.
"""

import argparse
import contextlib
import math
import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from restora import vocabulary
from restora.apps.parser import WHICH_NETWORK, Parser, with_plain_names
from restora.apps.restoring import method_options
from restora.photos.kinds import (
    FORMAT_SUFFIXES,
    FORMATS,
    LIMIT_VARIABLE,
    LOSSY,
    MEGAPIXELS,
    RAISE_LIMIT,
    VIDEO_SUFFIXES,
    kind,
)
from restora.words import counted
from restora.zoo.index import DEFAULT, PREFIX, names

if TYPE_CHECKING:
    from restora.apps.restoring.plan import Failure, Job
    from restora.apps.restoring.running import Outcome
    from restora.artifact.restorer import Restorer
    from restora.fitting.photos import PhotoFit

_COLOUR, _GREY = f"{PREFIX}denoise", f"{PREFIX}denoise_gray"
"""The first hardly removes noise that is equal in all channels."""
MODEL_SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors", ".onnx", ".pt2", ".xml")
"""Suffixes of model files."""


def parser() -> argparse.ArgumentParser:
    """The command line of `restora restore`."""
    made = Parser(
        prog="restora restore",
        description="Restore a photo or video, or all in a folder and below it, with a trained network. "
        "File names, tree, format, bit depth, EXIF, colour profile and transparency are kept, and the sound "
        "and time stamps of videos. "
        "The exit code is 0 only if every file was restored completely (an animation is not).",
    )
    made.add_argument(
        "model",
        metavar="SOURCE",
        nargs="?",
        default=DEFAULT,
        help="a model folder of `restora export` or a graph in it, a run, a checkpoint, a .pth, .safetensors "
        f"or .onnx file, zoo:NAME, or method:NAME, which needs no training (default: {DEFAULT}, for everyday "
        "photos)",
    )
    made.add_argument("input", metavar="INPUT", help="a photo, a video or a folder of them")
    made.add_argument(
        "output", metavar="OUTPUT", help="where to write: a folder, or a file name for a single file"
    )
    _add_work(made)
    method_options.add_options(made)
    _add_files(made)
    return made


def _add_work(made: argparse.ArgumentParser) -> None:
    """Options of the computation."""
    group = made.add_argument_group("restoring")
    group.add_argument(
        "--device",
        default="auto",
        help="auto, cpu, cuda, cuda:1, mps; several as cuda:0,cuda:1, or all for every GPU: photos go to "
        "whichever is free (default: auto)",
    )
    group.add_argument(
        "--precision",
        default="float32",
        metavar="WORD",
        help="float32, bf16, float16, or auto: bf16 where the device multiplies in it (default: float32)",
    )
    group.add_argument(
        "--engine",
        default="auto",
        metavar="WORD",
        help="torch, or on a CPU onnxruntime or openvino; auto is the fastest that the model folder has a "
        "graph for, by the folder's table or measured here (default: auto)",
    )
    group.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: torch's own choice)")
    group.add_argument(
        "--tile",
        type=int,
        metavar="PIXELS",
        help="side of a tile; smaller tiles need less memory, 0 is the whole photo (default: 1088, or "
        "less where memory "
        "is short). Networks that look at the "
        "whole photo at once (Restormer's attention, NAFNet without its local converter) see a tile instead: "
        "brightness may differ by a few levels from tile size to tile size",
    )
    group.add_argument(
        "--global-statistics",
        action="store_true",
        help="for Restormer: its tiles see the statistics of the whole photo, of patches from all over it",
    )
    group.add_argument(
        "--overlap", type=int, metavar="PIXELS", help="pixels shared by neighbouring tiles (default: 48)"
    )
    group.add_argument(
        "--sigma",
        type=_level,
        metavar="LEVEL",
        help="noise level, 0 to 255, for models conditioned on it; auto estimates it for each photo or video",
    )
    group.add_argument(
        "--task", metavar="TASK", help=f"task of weights that do not record it: {', '.join(vocabulary.TASKS)}"
    )
    group.add_argument("--network", metavar="NAME", help=WHICH_NETWORK)
    group.add_argument(
        "--mask",
        metavar="WHAT",
        help="for models that fill in: a picture that is white where pixels are missing, a folder of them "
        "with the photos' names, or the colour that marks missing pixels in the photo (#ff00ff, magenta). "
        "Everything else keeps its pixels, bit for bit",
    )
    group.add_argument(
        "--strength",
        type=float,
        default=1.0,
        metavar="0..1",
        help="share of the result: 1 is the restored photo (default), 0 the input, 0.5 half of each",
    )
    group.add_argument(
        "--self-ensemble",
        action="store_true",
        help="mean over all eight rotations and flips: a little better, eight times slower",
    )


def _add_files(made: argparse.ArgumentParser) -> None:
    """Options of reading and writing files."""
    group = made.add_argument_group("files")
    group.add_argument(
        "--format",
        choices=sorted(FORMAT_SUFFIXES | VIDEO_SUFFIXES),
        metavar="WORD",
        help="write photos, or videos, in this format and with its file extension instead of their own: "
        f"{', '.join(FORMAT_SUFFIXES)}; {', '.join(VIDEO_SUFFIXES)}",
    )
    group.add_argument(
        "--quality",
        type=int,
        metavar="1..100",
        help="quality of JPEG, AVIF, WebP and videos; makes WebP lossy, and 100 .mkv lossless (default: 95, "
        "and lossless WebP stays so)",
    )
    group.add_argument("--suffix", default="", metavar="TEXT", help="append to each name: a.jpg -> aTEXT.jpg")
    group.add_argument(
        "--strip-metadata",
        action="store_true",
        help="write no EXIF, GPS, XMP, IPTC, text or comments; colours and orientation are kept",
    )
    group.add_argument(
        "--compare",
        action="store_true",
        help="also write a picture of before and after for each photo: NAME.compare.jpg",
    )
    group.add_argument(
        "--max-megapixels",
        type=float,
        metavar="N",
        help=f"refuse larger photos (default: {MEGAPIXELS:g}; {LIMIT_VARIABLE} sets it for every command)",
    )
    group.add_argument(
        "--watch",
        action="store_true",
        help="keep running and restore each file that appears in the folder INPUT; those that OUTPUT has "
        "are skipped, unless --overwrite. Stop with Ctrl-C",
    )
    existing = group.add_mutually_exclusive_group()
    existing.add_argument("--overwrite", action="store_true", help="replace existing files in OUTPUT")
    existing.add_argument(
        "--skip-existing",
        action="store_true",
        help="skip files that OUTPUT has and restore the others, also after a crash: an existing file "
        "is complete",
    )


def main(argv: Sequence[str]) -> int:
    """0 if every photo was restored, 1 if some could not be. Raises ValueError for invalid arguments."""
    from restora.allocator import keep_freed_memory

    options = parser().parse_intermixed_args(_named_files(argv))
    _check_names(options)
    _check_numbers(options)
    if options.max_megapixels is not None:
        os.environ[LIMIT_VARIABLE] = str(options.max_megapixels)  # child processes inherit it
    keep_freed_memory()
    from restora.apps.restoring.plan import Naming, check_quality, measure, noun, plan, settle_existing
    from restora.apps.restoring.video import refused

    output = Path(options.output)
    if options.watch:
        return _watch(options, output)
    naming = Naming(options.format, options.suffix, sheets=options.compare)
    planned = plan(Path(options.input), output, naming, skip=options.skip_existing)
    if options.quality is not None:
        check_quality(planned.jobs)
    wanted = settle_existing(planned.jobs, overwrite=options.overwrite, skip=options.skip_existing)
    jobs, unreadable = measure(wanted, no_videos=refused(options))
    failures = [*planned.failures, *unreadable]
    skipped = len(planned.jobs) - len(wanted)
    if jobs:
        failures += _restore(jobs, _load(options), options, output, refused=len(failures)).failures
        if skipped:
            print(f"{counted(skipped, noun(planned.jobs))} skipped: {output} has them already")
    elif not failures:
        print(f"nothing to restore: {output} has every {noun(planned.jobs)} already")
    if planned.links:
        print(f"{counted(planned.links, 'link')} to photos that are listed already: each is restored once")
    if planned.others:
        print(f"not photos by their names: {counted(planned.others, 'file')}")
    _name(failures)
    return 1 if failures else 0


def _named_files(argv: Sequence[str]) -> list[str]:
    """Raises ValueError for the name of a file that looks like an option."""
    known = parser()._option_string_actions
    words = with_plain_names(argv)
    for word in words:
        if word.startswith("-") and word.partition("=")[0] not in known and Path(word).exists():
            raise ValueError(f"{word} begins with a dash, as options do: write ./{word}")
    return words


def _watch(options: argparse.Namespace, output: Path) -> int:
    """Restores new photos until interrupted; returns 0 if all were restored, else 1."""
    from restora.apps.restoring.plan import Naming, measure
    from restora.apps.restoring.video import refused
    from restora.apps.restoring.watching import appearing

    naming = Naming(options.format, options.suffix, sheets=options.compare)
    photos = appearing(Path(options.input), output, naming, overwrite=options.overwrite)
    restorers, failed = _load(options), False
    print(f"watching {options.input}: stop with Ctrl-C", flush=True)
    try:
        for planned in photos:
            jobs, unreadable = measure(planned.jobs, no_videos=refused(options))
            planned.failures += unreadable
            full = False
            if jobs:
                outcome = _restore(jobs, restorers, options, output, refused=len(planned.failures))
                planned.failures += outcome.failures
                full = outcome.full
            _name(planned.failures)
            failed = failed or bool(planned.failures)
            sys.stdout.flush()
            if full:
                print(f"stopped watching: nothing more can be written to {output}", flush=True)
                break
    except KeyboardInterrupt:
        print("stopped watching")
    return 1 if failed else 0


def _restore(
    jobs: Sequence["Job"],
    restorers: "list[Restorer] | list[PhotoFit]",
    options: argparse.Namespace,
    output: Path,
    *,
    refused: int,
) -> "Outcome":
    """Restores the photos and videos; the failures are those that failed, partly or completely.

    `refused` is the number of those that failed before and belong to the total.
    """
    from restora.apps.restoring.masks import Masks
    from restora.apps.restoring.plan import noun
    from restora.apps.restoring.running import run
    from restora.apps.restoring.settings import Settings
    from restora.apps.restoring.stopping import Ended, clear_drafts_of, terminable

    clear_drafts_of(jobs)
    settings = Settings(
        masks=None if options.mask is None else Masks(options.mask),
        strength=options.strength,
        self_ensemble=options.self_ensemble,
        quality=options.quality,
        strip_metadata=options.strip_metadata,
        compare=options.compare,
        estimate=options.sigma == "auto",
    )
    started = time.perf_counter()
    try:
        with terminable():
            outcome = run(jobs, restorers, settings)
    except Ended as ended:
        clear_drafts_of(jobs)
        print(f"restora restore: {ended.message(jobs)}", file=sys.stderr)
        raise ended.__cause__ or KeyboardInterrupt from None
    seconds = time.perf_counter() - started
    of = f"{len(jobs) + refused} {noun(jobs)}s"
    print(f"restored {outcome.restored} of {of} in {seconds:.1f} s: {output}")
    if outcome.left:
        print(
            f"stopped, as nothing more can be written: {counted(outcome.left, noun(jobs))} left; make room, "
            "then restore them with --skip-existing"
        )
    for line in outcome.losses():
        print(line)
    if outcome.grey and options.model == _COLOUR:
        print(f"{counted(outcome.grey, 'photo')} without colour: {_GREY} is trained for their noise")
    if options.quality is not None:
        without = sum(FORMATS[job.target.suffix.lower()] not in LOSSY for job in jobs if not job.is_video)
        if without:
            print(f"--quality has no effect on {counted(without, 'photo')}, of formats without one")
    if names := sorted(outcome.compressed):
        change = "changes" if len(names) == 1 else "change"
        print(
            f"{' and '.join(names)} also {change} pixels outside of the mask by a few levels: --format png "
            "keeps them"
        )
    return outcome


def _name(failures: "list[Failure]") -> None:
    from restora.words import shown

    if len(failures) > 1:
        print(f"restora restore: {len(failures)} were not restored, or not completely:", file=sys.stderr)
    for failure in failures:
        reason = failure.reason.replace(RAISE_LIMIT, "--max-megapixels N raises it")
        print(f"restora restore: {shown(failure.name)}: {reason}", file=sys.stderr)


def _check_names(options: argparse.Namespace) -> None:
    """Raises ValueError for names that are empty, missing or in the wrong place."""
    for word, value in (("INPUT", options.input), ("OUTPUT", options.output), ("--mask", options.mask)):
        if value is not None and not value.strip():
            raise ValueError(f"{word} is empty: name a file or a folder")
    name, folder, model = options.input, Path(options.input), options.model
    if model.lower() in names() and not Path(model).exists():
        raise ValueError(f"there is no model {model}. Did you mean {PREFIX}{model.lower()}?")
    if model != DEFAULT and (what := kind(model)) in ("photo", "video"):
        raise ValueError(
            f"{model} is a {what}, not a model: restora restore [MODEL] INPUT OUTPUT takes one {what} at a "
            f"time, or a folder of {what}s"
        )
    if re.match(r"https?://", name):
        raise ValueError(f"{name} is an address: download it first")
    if (
        name.startswith((PREFIX, "method:"))
        or folder.suffix.lower() in MODEL_SUFFIXES
        or any((folder / record).is_file() for record in ("model.json", "run.json"))
    ):
        raise ValueError(f"OUTPUT is missing: restora restore {name} {options.output} OUTPUT")


def _check_numbers(options: argparse.Namespace) -> None:
    """Raises ValueError for numbers that are out of range, before anything is loaded."""
    if not 0 <= options.strength <= 1:
        raise ValueError(f"--strength must be a number from 0 to 1, got {options.strength:g}")
    if options.quality is not None and not 1 <= options.quality <= 100:
        raise ValueError(f"--quality must be a whole number from 1 to 100, got {options.quality}")
    if options.tile == 0 and options.overlap is not None:
        raise ValueError("--overlap is of tiles, and --tile 0 restores photos in one piece: leave one out")
    if options.max_megapixels is not None and not 0 < options.max_megapixels < math.inf:
        raise ValueError(f"--max-megapixels must be a number above 0, got {options.max_megapixels:g}")


def _level(word: str) -> float | str:
    """Raises ArgumentTypeError for anything but `auto` and numbers from 0 to 255; NaN is none of them."""
    if word == "auto":
        return word
    with contextlib.suppress(ValueError):
        if 0 <= (level := float(word)) <= 255:
            return level
    raise argparse.ArgumentTypeError(f"expected a number from 0 to 255 or auto, got {word!r}")


def _load(options: argparse.Namespace) -> "list[Restorer] | list[PhotoFit]":
    """One restorer for each device, or one method. Raises ValueError before any photo is read."""
    from restora.apps.restoring.masks import Masks
    from restora.artifact.restorer import Restorer, every_device
    from restora.fitting.photos import PREFIX

    if options.model.startswith(PREFIX):
        return [method_options.load(options)]
    method_options.refuse_options(options)
    vocabulary.use_threads(options.threads)
    if options.mask is not None:
        Masks(options.mask)
    restorers = [
        Restorer.load(
            options.model,
            device=device,
            precision=options.precision,
            tile=None if options.tile is None else vocabulary.tile(options.tile, default=0),
            overlap=options.overlap,
            sigma=None if options.sigma == "auto" else options.sigma,
            engine=options.engine,
            global_statistics=options.global_statistics,
            task=options.task,
            network=options.network,
        )
        for device in every_device(options.device)
    ]
    description = restorers[0].description
    if options.task is not None and description is not None and description.task != options.task:
        raise ValueError(
            f"{options.model} states its task, {description.task}: leave out --task {options.task}"
        )
    _check_condition(restorers[0], options)
    if restorers[0].said:
        print(restorers[0].said)
    return restorers


def _check_condition(restorer: "Restorer", options: argparse.Namespace) -> None:
    """Raises ValueError if the options do not give the condition that the model needs, or give another."""
    assert restorer.description is not None
    wanted = restorer.description.conditioned_on
    if wanted == "maps":
        raise ValueError("this model needs condition maps that this command cannot make: use it from Python")
    if options.sigma is not None and wanted != "noise level":
        raise ValueError("--sigma: this model is not conditioned on a noise level, leave it out")
    if options.mask is not None and wanted != "mask":
        fills = " (or add --task inpaint, if it fills in)" if restorer.description.condition_channels else ""
        raise ValueError(f"--mask: this model is not conditioned on a mask, leave it out{fills}")
    if options.mask is None and wanted == "mask":
        raise ValueError("this model fills in missing pixels: give --mask WHAT")
    if wanted == "noise level" and restorer.sigma is None and options.sigma is None:
        raise ValueError(
            "this model is conditioned on the noise level and was trained on several: give --sigma LEVEL, "
            "or --sigma auto"
        )
