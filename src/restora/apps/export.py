"""`restora export`: the best checkpoint of a run, or another source, becomes a model folder.

It is checked against the checkpoint on real photos.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from restora import vocabulary
from restora.zoo.index import is_zoo

if TYPE_CHECKING:
    from restora.artifact.checkpoint import Source
    from restora.artifact.sources import Loaded


def parser() -> argparse.ArgumentParser:
    """The command line of `restora export`."""
    made = argparse.ArgumentParser(
        prog="restora export",
        description="Write a model folder (safetensors, model.json, ONNX, card) from any source of a model. "
        "It is declared good only after its outputs were compared with the checkpoint's on real photos.",
    )
    made.add_argument(
        "source",
        metavar="SOURCE",
        nargs="?",
        help="run folder (its best checkpoint), .ckpt, .pth or .safetensors file, another model folder, or "
        "zoo:NAME",
    )
    made.add_argument(
        "output", metavar="OUTPUT", nargs="?", help="model folder to write (default: RUN/model)"
    )
    made.add_argument(
        "--best",
        metavar="SWEEP_DIR",
        help="export the finished run below SWEEP_DIR that validation prefers",
    )
    made.add_argument("--photos", metavar="PATH", help="photo or folder to check on (default: the run's own)")
    made.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: torch's own choice)")
    made.add_argument("--no-onnx", action="store_true", help="leave model.onnx out")
    return made


def main(argv: Sequence[str]) -> int:
    """0 when a checked model folder stands at OUTPUT, 1 when the check failed and nothing was left behind."""
    made = parser()
    options = made.parse_args(argv)
    source_name, output_name = options.source, options.output
    if options.best is not None:
        if output_name is not None:
            made.error("with --best give at most one path more, the OUTPUT")
        source_name, output_name = None, source_name
    elif source_name is None:
        made.error("give a run folder or a checkpoint, or --best SWEEP_DIR")

    from rich.console import Console

    from restora.artifact.checkpoint import Source, locate
    from restora.artifact.export import ParityError, export_model
    from restora.artifact.parity import photo_files
    from restora.artifact.selection import best_run
    from restora.artifact.sources import Loaded

    vocabulary.use_threads(options.threads)
    console = Console(soft_wrap=True, highlight=False)
    if options.best is not None:
        chosen = best_run(options.best)
        source: Source | Loaded = locate(chosen.run)
        figure = chosen.monitor.in_words(chosen.value)
        console.print(f"best run by validation: {chosen.run} ({figure})", markup=False)
        if chosen.warning:
            console.print(f"its result is {chosen.warning}", markup=False, style="yellow")
    else:
        source = _opened(source_name)
    if isinstance(source, Loaded):
        shipped = source_name is not None and is_zoo(source_name)
        home = Path.cwd() / source.name if shipped else Path(source.source).resolve().parent
        what = source.said or source.source
    else:
        home = source.run if source.run is not None else source.checkpoint.resolve().parent
        what = str(source.checkpoint)
    output = Path(output_name) if output_name is not None else home / "model"
    photos = [] if options.photos is None else photo_files(Path(options.photos))
    console.print(f"exporting {what}", markup=False)
    try:
        export_model(
            source,
            output,
            photos=photos,
            with_onnx=not options.no_onnx,
            say=lambda line: console.print(f"  {line}", markup=False),
        )
    except ParityError as error:
        print(f"restora export: {error}; nothing was written to {output}", file=sys.stderr)
        return 1
    console.print(f"model folder: {output}", markup=False)
    return 0


def _opened(name: str) -> "Source | Loaded":
    """A run or a checkpoint with its record; any other source of a model as its network and what it tells."""
    from restora.artifact.checkpoint import locate
    from restora.artifact.model_folder import DESCRIPTION
    from restora.artifact.sources import open_source

    if is_zoo(name):
        return open_source(name)
    path = Path(name.removeprefix("weights="))
    if path.suffix == ".ckpt" or (path.is_dir() and not (path / DESCRIPTION).is_file()) or not path.exists():
        return locate(path)
    return open_source(path)
