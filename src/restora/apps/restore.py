"""`restora restore`: a photo or a tree of photos through a model folder.

Names, tree, format, bit depth, EXIF, colour profile and transparency are kept. One photo that cannot be
restored is named and the rest goes on; the exit code is 0 only if every photo was restored.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from restora import vocabulary

if TYPE_CHECKING:
    from restora.apps.restore_plan import Failure, Job
    from restora.artifact.restorer import Restorer


def parser() -> argparse.ArgumentParser:
    """The command line of `restora restore`."""
    made = argparse.ArgumentParser(
        prog="restora restore",
        description="Restore a photo, or every photo of a folder and its subfolders, with a model folder. "
        "File names, tree, format, bit depth, EXIF, colour profile and transparency are kept. "
        "The exit code is 0 only if every photo was restored.",
    )
    made.add_argument("model", metavar="MODEL_FOLDER", help="made by `restora export`")
    made.add_argument("input", metavar="INPUT", help="a photo or a folder of photos")
    made.add_argument(
        "output", metavar="OUTPUT", help="where to write: a folder, or a file name for a single photo"
    )
    made.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    made.add_argument(
        "--precision", default="float32", metavar="WORD", help="float32, bf16 or float16 (default: float32)"
    )
    made.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: torch's own choice)")
    made.add_argument(
        "--tile",
        type=int,
        metavar="PIXELS",
        help="side of a tile; less needs less memory, 0 is the whole photo (1088)",
    )
    made.add_argument("--overlap", type=int, metavar="PIXELS", help="what neighbouring tiles share (48)")
    made.add_argument(
        "--sigma", type=float, metavar="LEVEL", help="noise level, 0 to 255, for models that are told it"
    )
    made.add_argument(
        "--mask",
        metavar="PATH",
        help="for models that fill in: a picture that is white where the photo is lost, or a folder of them "
        "with the photos' names",
    )
    existing = made.add_mutually_exclusive_group()
    existing.add_argument("--overwrite", action="store_true", help="replace photos that OUTPUT has already")
    existing.add_argument(
        "--skip-existing", action="store_true", help="leave them, and go on with the others"
    )
    return made


def main(argv: Sequence[str]) -> int:
    """0 if every photo was restored, 1 if some could not be; ValueError for arguments that make no sense."""
    from restora.apps.restore_plan import plan, settle_existing

    options = parser().parse_args(argv)
    source, output = Path(options.input), Path(options.output)
    planned = plan(source, output)
    failures, others = planned.failures, planned.others
    jobs = settle_existing(planned.jobs, overwrite=options.overwrite, skip=options.skip_existing)
    if jobs:
        from restora.apps.restore_run import Masks, run

        restorer = _load(options)
        started = time.perf_counter()
        masks = None if options.mask is None else Masks(Path(options.mask))
        failures += run(jobs, restorer, masks)
        seconds = time.perf_counter() - started
        done = len(jobs) - _failed(jobs, failures)
        print(f"restored {done} of {len(jobs)} photos in {seconds:.1f} s: {output}")
    else:
        print(f"nothing to restore: {output} has every photo already")
    if others:
        print(f"{others} files that are not photos were left out")
    for failure in failures:
        print(f"restora restore: {failure.name}: {failure.reason}", file=sys.stderr)
    return 1 if failures else 0


def _failed(jobs: "list[Job]", failures: "list[Failure]") -> int:
    names = {failure.name for failure in failures}
    return sum(job.name in names for job in jobs)


def _load(options: argparse.Namespace) -> "Restorer":
    from PIL import Image

    from restora.allocator import keep_freed_memory
    from restora.artifact.restorer import TILE, Restorer

    keep_freed_memory()
    vocabulary.use_threads(options.threads)
    Image.MAX_IMAGE_PIXELS = None  # Pillow's guard against hostile uploads: these are the user's own photos
    restorer = Restorer.load(
        options.model,
        device=options.device,
        precision=options.precision,
        tile=vocabulary.tile(options.tile, default=TILE),
        overlap=options.overlap,
        sigma=options.sigma,
    )
    _check_told(restorer, options)
    return restorer


def _check_told(restorer: "Restorer", options: argparse.Namespace) -> None:
    """Raises ValueError where the model and the options differ about what the model is told."""
    assert restorer.description is not None
    told = restorer.description.told
    if told == "maps":
        raise ValueError("this model is told maps that this command cannot make: use it from Python")
    if options.sigma is not None and told != "noise level":
        raise ValueError("--sigma was given, but this model is not told a noise level: leave it out")
    if options.mask is not None and told != "mask":
        raise ValueError("--mask was given, but this model is not told a mask: leave it out")
    if options.mask is None and told == "mask":
        raise ValueError("this model is told which pixels are lost: give --mask PATH")
    if told == "noise level" and restorer.sigma is None:
        raise ValueError(
            "this model is told the noise level and was trained on more than one: give --sigma LEVEL"
        )
