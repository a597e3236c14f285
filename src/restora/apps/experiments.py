"""`restora experiments`: lists the experiments by task, with the machine each is meant for and its cost.

To be fast, it reads only the files: each experiment's comment has a line `# machine: …` and a line
`# cost: …`. `machine_of` and `cost_of` compute the text of those lines from the configuration.
"""

import argparse
import itertools
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restora.apps.parser import Parser
from restora.files import json_text

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from rich.console import Console

_PASSES = 3
"""The cost of a training step in forward passes: the backward pass counts as two."""
_OTHER = "other"
_TABULAR = re.compile(r"(@package|machine:|cost:)")
"""Lines of a comment that are not prose."""
_NONE = "adhoc"
"""The option that stands for no experiment."""


@dataclass(frozen=True)
class Experiment:
    """One option of `experiments`; `machine` and `cost` are empty if its comment does not state them."""

    name: str
    task: str
    machine: str
    cost: str
    about: str
    """The first sentence of its comment."""
    words: str = ""
    """The whole comment, without the lines for machine and cost."""


def main(argv: list[str]) -> int:
    arguments = _parser().parse_args(argv)
    found = [item for item in experiments() if arguments.task in (None, item.task)]
    if not found:
        tasks = ", ".join(sorted({item.task for item in experiments()}))
        raise ValueError(f"there are no experiments for {arguments.task}: choose a task of {tasks}")
    if arguments.json:
        print(json_text([asdict(item) for item in found]))
        return 0
    from rich.console import Console

    _show(found, Console(highlight=False))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="restora experiments",
        description="List the experiments by task, with the machine each is meant for and what it costs.",
    )
    parser.add_argument("task", nargs="?", metavar="TASK", help="only those for a task, such as denoise")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser


def experiments() -> Iterator[Experiment]:
    """The experiments of restora, of plugins and of --config-dir, in order of their names."""
    from restora.config import files_of

    for name, path in files_of("experiments").items():
        if name != _NONE:
            yield Experiment(name, _OTHER, "", "", "") if path is None else read(name, path)


def comment(name: str, path: Path) -> list[str]:
    """The lines of the comment at the top of an experiment's file, or above its variant."""
    lines = path.read_text(encoding="utf-8").splitlines()
    own = name.rpartition("/")[2]
    if path.stem == own:
        return [line.lstrip("# ") for line in lines if line.startswith("#")]
    end = next(i for i, line in enumerate(lines) if line.startswith(f"  {own}:"))
    above = itertools.takewhile(lambda line: line.startswith("  #"), reversed(lines[:end]))
    return [line.lstrip("# ") for line in above][::-1]


def read(name: str, path: Path) -> Experiment:
    """An experiment with the entries of its comment."""
    text = path.read_text(encoding="utf-8")
    said = {key: value for key, _, value in (line.partition(": ") for line in comment(name, path))}
    words = [line for line in comment(name, path) if not _TABULAR.match(line)]
    task = re.search(r"^task: *([\w-]+)", text, re.MULTILINE)
    return Experiment(
        name=name,
        task=task[1] if task else _OTHER,
        machine=said.get("machine", ""),
        cost=said.get("cost", ""),
        about=re.split(r"(?<=[^A-Z])\. |\.$|: ", " ".join(words))[0],
        words=" ".join(words),
    )


def machine_of(config: "DictConfig") -> str:
    """The machine that a composed experiment is meant for."""
    trainer = config.trainer
    kind = "GPU" if trainer.accelerator == "gpu" else "CPU"
    many = trainer.devices != 1 or trainer.num_nodes != 1
    return f"{'several' if many else 'one'} {kind}{'s' if many else ''}"


def cost_of(config: "DictConfig") -> str:
    """The length of a composed experiment: its time limit, or its steps and their multiply-accumulates.

    The multiply-accumulates are those of the network alone, forward and backward.
    """
    from restora import vocabulary
    from restora.apps.networks import quantity
    from restora.config import build
    from restora.networks.cost import count_macs
    from restora.networks.meta import on_meta

    length = vocabulary.seconds(config.trainer.max_time, "trainer.max_time")
    if length is not None:
        return vocabulary.duration(length)
    batches_per_step = int(config.trainer.accumulate_grad_batches)
    steps = int(config.trainer.max_steps) * batches_per_step
    network = on_meta(lambda: build(config.network, "network"))
    whole = {"start_step": 0, "patch_size": config.data.patch_size, "batch_size": config.data.batch_size}
    stages: list[Any] = list(config.data.stages or [whole])
    starts = [stage["start_step"] * batches_per_step for stage in stages]
    total = 0.0
    for stage, start, end in zip(stages, starts, [*starts[1:], steps], strict=True):
        side = stage["patch_size"] // network.scale
        macs = count_macs(network, height=side, width=side)
        if macs is None:
            return f"{steps:,} steps"
        total += _PASSES * macs * stage["batch_size"] * (end - start)
    return f"{steps:,} steps, {quantity(total)} MACs"


def _show(found: list[Experiment], console: "Console") -> None:
    from rich.table import Table

    for task in sorted({item.task for item in found}, key=lambda task: (task == _OTHER, task)):
        table = Table("", "", "", box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
        for item in (item for item in found if item.task == task):
            table.add_row(f"  {item.name}", item.machine or "-", item.cost or "-")
        console.print(f"[bold]{task.replace('_', '-')}[/bold]")
        console.print(table)
    console.print(
        "\nMACs: multiply-accumulates of the network in the whole training, forward and\nbackward. "
        "`restora bench experiments=NAME` measures what one takes here. A time\nis a limit on any machine: "
        "how many steps fit into it depends on the processor.",
        markup=False,
    )
