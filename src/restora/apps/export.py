"""`restora export`: the best checkpoint of a run, or another source, becomes a model folder.

It is checked against the checkpoint on real photos, in every format.
"""

import argparse
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restora import vocabulary
from restora.apps.parser import WHICH_NETWORK, Parser
from restora.artifact import hub
from restora.artifact.formats import FORMATS, chosen
from restora.zoo.index import is_zoo

if TYPE_CHECKING:
    from rich.table import Table

    from restora.artifact.checkpoint import Source
    from restora.artifact.sources import Loaded


def parser() -> argparse.ArgumentParser:
    """The command line of `restora export`."""
    made = Parser(
        prog="restora export",
        description="Write a model folder (weights, model.json, card, and further formats) from any source "
        "of a model. Each format is run on real photos and compared with the checkpoint; formats whose "
        "output differs are left out. The exit code is 0 if all requested formats were written.",
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
        help="export the run with the best validation score below SWEEP_DIR",
    )
    made.add_argument(
        "--photos",
        metavar="PATH",
        help="photo or folder to check on, in addition to the held-out photos of the run",
    )
    made.add_argument(
        "--format",
        metavar="LIST",
        help=f"formats besides the weights, with commas: {', '.join(FORMATS)}; all; safetensors for none "
        "(default: onnx, where its packages are installed)",
    )
    made.add_argument(
        "--push",
        metavar="USER/NAME",
        help="then upload the folder to the Hugging Face hub, by the account of HF_TOKEN or `hf auth login`; "
        "a new repository is private",
    )
    made.add_argument(
        "--task", metavar="TASK", help=f"task of weights that do not state one: {', '.join(vocabulary.TASKS)}"
    )
    made.add_argument("--network", metavar="NAME", help=WHICH_NETWORK)
    made.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: torch's own choice)")
    made.add_argument("--no-onnx", action="store_true", help="the same as --format safetensors")
    return made


def main(argv: Sequence[str]) -> int:
    """0 if OUTPUT is a checked model folder; 1 if the check failed, and then nothing is left behind."""
    made = parser()
    options = made.parse_args(argv)
    source_name, output_name = options.source, options.output
    if options.best is not None:
        if output_name is not None:
            made.error("--best takes at most one more path, OUTPUT")
        source_name, output_name = None, source_name
    elif source_name is None:
        made.error("give a run folder or a checkpoint, or --best SWEEP_DIR")

    from rich.console import Console

    from restora.artifact.checkpoint import Source, locate
    from restora.artifact.export import ParityError, export_model
    from restora.artifact.graph_network import GraphNetwork
    from restora.artifact.parity import photo_files
    from restora.artifact.selection import best_run
    from restora.artifact.sources import Loaded

    wanted = () if options.no_onnx else chosen(options.format or "onnx")
    if options.push is not None:
        hub.check(options.push)
    vocabulary.use_threads(options.threads)
    console = Console(soft_wrap=True, highlight=False)
    if options.best is not None:
        best = best_run(options.best)
        source: Source | Loaded = locate(best.run)
        figure = best.monitor.in_words(best.value)
        console.print(f"best run by validation: {best.run} ({figure})", markup=False)
        if best.warning:
            console.print(f"its result is {best.warning}", markup=False, style="yellow")
    else:
        source = _opened(source_name, options.task, options.network)
    if options.task is not None and (isinstance(source, Source) or source.description.task != options.task):
        raise ValueError(f"{source_name or options.best} states its task: leave out --task {options.task}")
    if isinstance(source, Loaded):
        if isinstance(source.network, GraphNetwork):
            raise ValueError(
                f"{source.source} is an exported graph: name the model that it was exported from"
            )
        shipped = source_name is not None and is_zoo(source_name)
        home = Path.cwd() / source.name if shipped else Path(source.source).resolve().parent
        what = source.source
        if source.said:
            console.print(source.said, markup=False)
    else:
        home = source.run if source.run is not None else source.checkpoint.resolve().parent
        what = str(source.checkpoint)
    output = Path(output_name) if output_name is not None else home / "model"
    photos = [] if options.photos is None else photo_files(Path(options.photos))
    console.print(f"exporting {what}", markup=False)
    try:
        with ended_by_exception(), at_work() as begin:
            description = export_model(
                source,
                output,
                photos=photos,
                wanted=wanted,
                say=lambda line: console.print(f"  {line}", markup=False),
                begin=begin,
            )
    except ParityError as error:
        print(f"restora export: {error}; nothing was written to {output}", file=sys.stderr)
        return 1
    console.print(parity_table(description.parity))
    console.print(*measured_on(description.parity), sep="\n", markup=False)
    left_out = description.parity["left_out"]
    for name, reason in left_out.items():
        console.print(f"left out: {name}: {reason}", markup=False, style="yellow")
    console.print(f"model folder: {output}", markup=False)
    if options.push is not None:
        console.print(f"pushed: {hub.push(output, options.push, description)}", markup=False)
    return 1 if left_out and options.format is not None else 0


@contextmanager
def at_work() -> Iterator[Callable[[str], None]]:
    """Yields a function that shows on a terminal what is being done, and for how long."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(file=sys.stdout)  # also while converters' own output is kept off it
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as shown:

        def begin(what: str) -> None:
            for task in shown.task_ids:
                shown.remove_task(task)
            shown.add_task(what, total=None)

        yield begin


@contextmanager
def ended_by_exception() -> Iterator[None]:
    """SIGTERM and SIGHUP end the command by an exception, as Ctrl-C does, so unfinished output is removed."""

    def end(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _opened(name: str, task: str | None, network: str | None) -> "Source | Loaded":
    """A run or checkpoint as `Source`, with its record; any other source of a model as `Loaded`."""
    from restora.artifact.checkpoint import locate
    from restora.artifact.model_folder import DESCRIPTION
    from restora.artifact.sources import open_source, own_checkpoint

    if is_zoo(name):
        return open_source(name, task=task, network=network)
    path = Path(name.removeprefix("weights="))
    folder = path.is_dir() and not (path / DESCRIPTION).is_file()
    if folder or (path.exists() and own_checkpoint(path) is not None):
        return locate(path)
    return open_source(path, task=task, network=network)


def parity_table(parity: Mapping[str, Any]) -> "Table":
    """A table of the measurements of each format, for a terminal of 80 columns."""
    from rich import box
    from rich.table import Table

    from restora.artifact.card import cells

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, width=80)
    made.add_column("format")
    for name in ("PSNR, dB", "loss, dB", "max diff", "s per MP", "peak MB", "file MB"):
        made.add_column(name, justify="right", no_wrap=True)
    for name, row in parity["formats"].items():
        made.add_row(name, *cells(row))
    return made


def measured_on(parity: Mapping[str, Any]) -> list[str]:
    """Lines that name the photos and the machine of the measurements."""
    machine = parity["machine"]
    side, threads, count = machine["side"], machine["threads"], len(parity["photos"])
    return [
        f"measured on {count} photo{'s' * (count != 1)}; time and memory for {side}x{side} pixels on",
        f"{machine['cpu']}, {threads} thread{'s' * (threads > 1)}",
    ]
