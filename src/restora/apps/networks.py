"""`restora networks`: lists every network that has a configuration, with its size and cost.

Parameters and multiply-accumulates are counted on the meta device, where nothing is computed. Times, if they
are asked for, are measured on this machine's CPU, on a smaller photo, because the largest networks take a
minute for one of 256x256.
"""

import argparse
import difflib
import fnmatch
import statistics
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

from restora import vocabulary
from restora.apps.parser import Parser
from restora.files import json_text

if TYPE_CHECKING:
    from rich.table import Table

    from restora.networks.base import Network

Node = dict[str, Any]
"""A network's description: its registered name under `_target_`, and its arguments."""
SIZE = 256
TIMED_SIZE = 64
QUICK = 150e9
"""Most multiply-accumulates at SIZE x SIZE of a network for `--time quick`: about a second of two cores."""
CODES = {
    "denoise": "DN",
    "super_resolution": "SR",
    "deblur": "DB",
    "jpeg": "JP",
    "inpaint": "IN",
    "colourise": "CO",
    "derain": "DR",
}


@dataclass(frozen=True)
class Entry:
    """One network, built from its configuration, without weights."""

    name: str
    family: str
    """The families of the experiments that train the architecture; empty if there are none."""
    tasks: tuple[str, ...]
    scale: int
    parameters: int
    macs: int | None
    """Multiply-accumulates of one photo of SIZE x SIZE; None if they cannot be counted."""
    milliseconds: float | None = None
    """Time of one photo of TIMED_SIZE x TIMED_SIZE on this CPU, float32; None if not measured."""


def configurations() -> dict[str, Node]:
    """The description of every option of `network` by its name."""
    from restora.config import parts

    return parts("network")


def build(node: Node) -> "Network":
    """The network of one description."""
    from restora.config import build as build_node
    from restora.networks.base import checked

    if "_target_" not in node:
        raise ValueError("its file has no _target_")
    return checked(build_node(node, "network"))


def build_on_meta(node: Node) -> "Network":
    """The network of one description, without memory for its weights."""
    from restora.networks.meta import on_meta

    return on_meta(lambda: build(node))


def families(nodes: dict[str, Node]) -> dict[str, str]:
    """Architecture, by its registered name -> the families of the experiments that train it.

    `nodes` are the descriptions of all networks.
    """
    from restora.config import recipes

    found: dict[str, set[str]] = {}
    for chosen in recipes().values():
        if "network" in chosen and "family" in chosen:
            target = nodes.get(chosen["network"], {}).get("_target_")
            found.setdefault(str(target), set()).add(chosen["family"])
    return {architecture: ", ".join(sorted(names)) for architecture, names in found.items()}


def count(name: str, node: Node, family: str = "") -> Entry:
    """The entry of one configuration, without its time."""
    from restora.networks.cost import count_macs, count_parameters

    network = build_on_meta(node)
    return Entry(
        name=name,
        family=family,
        tasks=tuple(network.tasks),
        scale=network.scale,
        parameters=count_parameters(network),
        macs=count_macs(network, height=SIZE, width=SIZE),
    )


def measure(node: Node, *, runs: int = 3, patience: float = 0.3) -> float:
    """Median milliseconds of one TIMED_SIZE x TIMED_SIZE photo, after one run to warm up.

    No further run starts once the measured runs have taken `patience` seconds.
    """
    import torch

    network = build(node).eval()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = torch.rand(1, network.in_channels, TIMED_SIZE, TIMED_SIZE)
    planes = network.condition_channels
    condition = torch.rand(1, planes, TIMED_SIZE, TIMED_SIZE) if planes else None
    times: list[float] = []
    with torch.inference_mode():
        network(x, condition)
        while len(times) < runs and sum(times) < patience:
            start = perf_counter()
            network(x, condition)
            times.append(perf_counter() - start)
    return statistics.median(times) * 1000


def main(argv: list[str]) -> int:
    arguments = _parser().parse_args(argv)
    vocabulary.use_threads(arguments.threads)
    nodes = configurations()
    found = _chosen(nodes, arguments.names, arguments.small)
    broken: dict[str, str] = {}
    trained_by = families(nodes)
    suited = _suited(found, arguments.family, arguments.task, trained_by)
    entries = list(_entries(suited, trained_by, timing=arguments.time, broken=broken))
    _show(entries, arguments)
    for name, reason in broken.items():
        print(f"{name} {reason}", file=sys.stderr)
    return 1 if broken else 0


def _show(entries: list[Entry], arguments: argparse.Namespace) -> None:
    if arguments.json:
        print(json_text([asdict(entry) for entry in entries]))
        return
    if arguments.markdown:
        print(markdown(entries))
        return
    from rich.console import Console

    console = Console()
    console.print(_table(entries, timed=arguments.time != "none"))
    legend = "  ".join(f"{code} {task.replace('_', '-')}" for task, code in CODES.items())
    console.print(f"[dim]{legend}[/dim]")
    if arguments.time == "quick" and any(entry.milliseconds is None for entry in entries):
        console.print("[dim]- takes more than about a second: time it with --time all[/dim]")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="restora networks", description="List the networks with their sizes and what they cost."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="names or patterns such as 'dncnn*'")
    parser.add_argument("--family", choices=("residual_cnn", "unet", "nafnet", "gan", "transformer"))
    parser.add_argument("--task", choices=tuple(CODES), metavar="TASK", help=", ".join(CODES))
    parser.add_argument("--small", action="store_true", help="also the small twins for tests and CPUs")
    parser.add_argument(
        "--time",
        choices=("none", "quick", "all"),
        default="none",
        help="which to time on this CPU (default: none); quick leaves out those of more than a second, "
        "all takes minutes",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads that are timed")
    parser.add_argument("--markdown", action="store_true", help="print the counts as the table of the docs")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser


def _chosen(found: dict[str, Node], patterns: list[str], small: bool) -> dict[str, Node]:
    """The configurations by name or pattern, or all full-size ones. Raises ValueError if a name fits none."""
    if not patterns:
        return {name: node for name, node in found.items() if small or not name.endswith("_small")}
    names: set[str] = set()
    for pattern in patterns:
        matches = fnmatch.filter(found, pattern)
        if not matches:
            near = difflib.get_close_matches(pattern, found, n=3)
            hint = f"did you mean {' or '.join(near)}? " if near else ""
            raise ValueError(f"there is no network {pattern!r}: {hint}`restora networks` lists them")
        names.update(matches)
    return {name: found[name] for name in sorted(names)}


def _suited(
    found: dict[str, Node], family: str | None, task: str | None, trained_by: dict[str, str]
) -> dict[str, Node]:
    """The networks of the wanted family and task; None stands for any."""
    if family is None and task is None:
        return found
    from restora import registry

    suited = {}
    for name, node in found.items():
        cls = registry.part_of(node, "network")
        names = trained_by.get(str(node.get("_target_")), "").split(", ")
        if (family is None or family in names) and (task is None or task in getattr(cls, "tasks", ())):
            suited[name] = node
    return suited


def _entries(
    found: dict[str, Node], trained_by: dict[str, str], *, timing: str, broken: dict[str, str]
) -> Iterator[Entry]:
    """The entries; networks that cannot be built or run are put in `broken`, each with the reason."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("counting", total=len(found))
        for name, node in found.items():
            progress.update(bar, description=name)
            progress.advance(bar)
            try:
                entry = count(name, node, trained_by.get(str(node.get("_target_")), ""))
                if timing == "all" or (timing == "quick" and (entry.macs or 0) <= QUICK):
                    entry = replace(entry, milliseconds=measure(node))
            except Exception as error:  # whatever the code of a network raises
                broken[name] = f"cannot be {_what_fails(node)}: {str(error).strip() or type(error).__name__}"
                continue
            yield entry


def _what_fails(node: Node) -> str:
    try:
        build_on_meta(node)
    except Exception:
        return "built"
    return "run"


def quantity(number: float | None) -> str:
    """1,234,567 as 1.23M: three significant digits and the unit."""
    if number is None:
        return "-"
    for size, unit in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "K")):
        # 999,950 already rounds to 1.00 of the next unit
        if number >= size * 0.9995:
            return f"{number / size:#.3g}".rstrip(".") + unit
    return f"{number:.0f}"


def markdown(entries: list[Entry]) -> str:
    """The counts as a Markdown table, one line per network."""
    lines = [
        f"| network | family | tasks | scale | parameters | MACs at {SIZE}×{SIZE} |",
        "| --- | --- | --- | ---: | ---: | ---: |",
    ]
    for entry in sorted(entries, key=lambda e: (e.family, e.name)):
        tasks = ", ".join(task.replace("_", "-") for task in entry.tasks)
        counts = f"{entry.parameters:,} | {quantity(entry.macs)}"
        lines.append(f"| `{entry.name}` | {entry.family} | {tasks} | ×{entry.scale} | {counts} |")
    return "\n".join(lines)


def _table(entries: list[Entry], *, timed: bool) -> "Table":
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False, collapse_padding=True)
    table.add_column("network", overflow="fold")
    table.add_column("family", overflow="fold")
    table.add_column("tasks", overflow="fold")
    table.add_column("scale", justify="right")
    table.add_column("params", justify="right", no_wrap=True)
    table.add_column(f"MACs\n{SIZE}x{SIZE}", justify="right", no_wrap=True)
    if timed:
        table.add_column(f"CPU ms\n{TIMED_SIZE}x{TIMED_SIZE}", justify="right", no_wrap=True)
    for entry in sorted(entries, key=lambda e: (e.family, e.name)):
        row: list[Any] = [
            entry.name,
            entry.family,
            " ".join(CODES.get(task, task) for task in entry.tasks),
            f"x{entry.scale}" if entry.scale > 1 else "",
            quantity(entry.parameters),
            quantity(entry.macs),
        ]
        if timed:
            row.append("-" if entry.milliseconds is None else f"{entry.milliseconds:,.0f}")
        table.add_row(*row)
    return table
