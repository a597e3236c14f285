"""`restora bench`: estimates the cost of an experiment on this machine by training a few of its steps.

It trains as `train` does, for each stage of patch sizes, without records and checkpoints. It prints a table:
seconds per step, the shares of data, degradation, network and optimiser, memory, and hours to the end of the
recipe with its validations.
"""

import logging
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from restora.files import check_writable, write_json
from restora.words import three_digits

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from rich.table import Table

    from restora.training.costing import Cost
    from restora.training.measuring import Progress

HELP = """usage: restora bench [GROUP=OPTION ...] [KEY=VALUE ...]
                     [steps=20] [warm_up=3] [output=FILE]

  restora bench experiments=denoise/dncnn   what that run will cost on this
                                            machine
  restora bench experiments=denoise/nafnet trainer=gpu
                                            on a GPU
  restora bench … steps=50 warm_up=10       batches that count, and that come
                                            before these
  restora bench … val_batches=0             leave validation out
  restora bench … output=cost.json          the same in a file

All other arguments are those of `restora train`. Without an experiment, its
default training is measured (a few minutes on a CPU).
"""
log = logging.getLogger(__name__)
DEFAULTS = {"steps": 20, "warm_up": 3, "val_batches": 2}
LEAST = {"steps": 2, "warm_up": 1, "val_batches": 0}


def main(argv: list[str]) -> int:
    """Raises `ConfigError` (a `ValueError`) for an experiment that cannot be measured."""
    if any(word in ("-h", "--help") for word in argv):
        print(HELP)
        return 0
    numbers, output, overrides = _own(argv)
    from restora.config import compose
    from restora.training.build import check_before_training
    from restora.training.costing import recipe_of, total
    from restora.training.measuring import Measurement
    from restora.training.settings import slow_precision, trainer_options

    config = compose("train", overrides)
    check_before_training(config)
    config.trainer.precision = trainer_options(config)["precision"]
    if slow := slow_precision(config):
        log.warning(slow)
    recipe = recipe_of(config)
    names = [word.partition("=")[2] for word in overrides if word.startswith("experiments=")]
    experiment = names[-1] if names else "adhoc"
    with _progress(experiment) as show, _named_once():
        measurement = Measurement(config, warm_up=numbers["warm_up"], steps=numbers["steps"], progress=show)
        stages = measurement.stages()
        validation = measurement.validation(numbers["val_batches"])
    cost = total(
        experiment=experiment,
        machine=_machine(config),
        processes=measurement.processes,
        stages=stages,
        validation=validation,
        recipe=recipe,
    )
    _show(cost)
    threads, waiting = threads_in_words(config.threads)
    print(f"threads      {threads}\nwaiting      {waiting}")
    if output is not None:
        write_json(output, asdict(cost))
        print(output)
    return 0


@contextmanager
def _named_once() -> "Iterator[None]":
    """Files that are left out are named by the first measurement alone."""
    said = set[str]()

    def is_new(record: logging.LogRecord) -> bool:
        known = record.getMessage() in said
        said.add(record.getMessage())
        return not known

    logger = logging.getLogger("restora.data.module")
    logger.addFilter(is_new)
    try:
        yield
    finally:
        logger.removeFilter(is_new)


def _own(argv: list[str]) -> tuple[dict[str, int], Path | None, list[str]]:
    """This command's own numbers, its output file, and the overrides of the configuration."""
    numbers, output, rest = dict(DEFAULTS), None, []
    for word in argv:
        key, _, value = word.partition("=")
        if word.startswith("-"):
            raise ValueError(f"bench takes GROUP=OPTION and KEY=VALUE, got {word} (restora bench --help)")
        if key == "output":
            output = Path(value)
            check_writable(output, setting="output")
        elif key not in DEFAULTS:
            rest.append(word)
        elif not value.isdecimal() or int(value) < LEAST[key]:
            raise ValueError(f"{key} must be a number of {LEAST[key]} or more, got {value!r}")
        else:
            numbers[key] = int(value)
    return numbers, output, rest


def _machine(config: "DictConfig") -> str:
    """The measured device, cores and precision, in words."""
    import torch

    from restora.training.record import machine

    found = machine()
    if config.trainer.accelerator != "cpu" and found["gpu"]:
        return f"{found['gpu']}, {config.trainer.precision}"
    return f"{found['cpu']}, {torch.get_num_threads()} of {found['cores']} cores, {config.trainer.precision}"


def threads_in_words(chosen: int | None) -> tuple[str, str]:
    """The number of CPU threads and how they wait for each other, each with who set it."""
    import os

    import torch

    count = torch.get_num_threads()
    if chosen is not None:
        whose = f"threads={chosen}"
    elif "OMP_NUM_THREADS" in os.environ:
        whose = f"your OMP_NUM_THREADS={os.environ['OMP_NUM_THREADS']}"
    else:
        whose = "torch's choice; threads=N sets it"
    spin, policy = os.environ.get("GOMP_SPINCOUNT"), os.environ.get("OMP_WAIT_POLICY")
    if spin is not None:
        own = spin == os.environ.get("RESTORA_SPINCOUNT")
        waiting = f"GOMP_SPINCOUNT={spin} ({'set by restora' if own else 'yours'})"
    else:
        waiting = f"OMP_WAIT_POLICY={policy} (yours)" if policy else "as OpenMP has it"
    return f"{count} ({whose})", waiting


def _show(cost: "Cost") -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console(width=80, highlight=False)
    console.print(f"[bold]{escape(cost.experiment)}[/bold] on {escape(cost.machine)}", soft_wrap=True)
    console.print(table(cost))
    if cost.validation is not None:
        each = f"{cost.validation.photos} x {three_digits(cost.validation.seconds_per_photo)} s each time"
        console.print(f"validation   {each}, {_duration(cost.validation_hours)} in all", soft_wrap=True)
    least = "at least " if cost.processes > 1 else ""
    console.print(f"the recipe   {cost.steps:,} steps: {least}{_duration(cost.hours)}", soft_wrap=True)
    if cost.processes > 1:
        console.print(
            f"measured     one of {cost.processes} processes, with its share of each batch; all figures are "
            "its own, and what processes wait for one another comes on top",
            soft_wrap=True,
        )


def table(cost: "Cost") -> "Table":
    """One column per stage."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    made.add_column("from batch")
    for stage in cost.stages:
        made.add_column(f"{stage.start_step:,}", justify="right", no_wrap=True)
    quartiles = [statistics.quantiles(stage.seconds, n=4, method="inclusive") for stage in cost.stages]
    lines: list[tuple[str, list[str]]] = [
        ("patches", [f"{stage.batch_size}x{stage.patch_size}²" for stage in cost.stages]),
        ("seconds per batch", [three_digits(middle) for _, middle, _ in quartiles]),
        ("  quartiles", [f"{three_digits(low)}-{three_digits(high)}" for low, _, high in quartiles]),
        ("samples per second", [three_digits(stage.samples_per_second) for stage in cost.stages]),
        *(
            (f"  {part}", [f"{stage.shares[part]:.1%}" for stage in cost.stages])
            for part in cost.stages[0].shares
        ),
        (
            f"{cost.stages[0].memory_of}'s peak, GiB",
            [f"{stage.memory / 2**30:.2f}" for stage in cost.stages],
        ),
    ]
    for name, cells in lines:
        made.add_row(name, *cells)
    return made


def _duration(hours: float) -> str:
    if hours < 1 / 60:
        return f"{3600 * hours:.0f} s"
    if hours < 1:
        return f"{60 * hours:.0f} min"
    return f"{hours:.1f} h" if hours < 100 else f"{hours / 24:.0f} days"


@contextmanager
def _progress(experiment: str) -> "Iterator[Progress]":
    """A progress bar on a terminal, else a line per stage."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress as Bar

    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:

        def line(done: int, total: int) -> None:
            if done == 1:
                console.print(f"{experiment}: measuring {total} batches", markup=False, soft_wrap=True)

        yield line
        return
    with Bar(console=console, transient=True) as bar:
        task = bar.add_task(escape(experiment))
        yield lambda done, total: bar.update(task, completed=done, total=total)
