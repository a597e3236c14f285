"""Estimates the cost of a sweep before it starts: hours of computing and bytes on disk.

One short measurement stands for all jobs of one kind: the same network, patches, batch, precision,
compilation and device. A job with a time limit needs none.
"""

import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich import box
from rich.console import Console
from rich.table import Table

from restora.networks.cost import count_macs, count_parameters
from restora.sweeping.combinations import Composed, check
from restora.sweeping.running import gpu_slots
from restora.sweeping.showing import short

_SLOWEST_MACS = 4e9
"""Multiply-accumulates per second that every machine reaches; a sweep below its limit at that rate is not
measured. NAFNet has 1.0e10 in training on one core of an AMD EPYC 7003 (AVX2)."""
_SLOW_PRECISION = 20
"""At most as many times as long takes a step in a precision without instructions for it."""
_PASSES = 3
"""The cost of a training step in forward passes: the backward pass counts as two."""
_BYTES = 16 * 3
"""Bytes per parameter: weights, their average and two moments, in float32, in three checkpoints."""
_LISTED = 30


def kind(config: dict[str, Any]) -> str:
    """A key that is equal for jobs with the same time per step; each kind is measured once."""
    data, trainer = config["data"], config["trainer"]
    sizes = [data.get(key) for key in ("patch_size", "batch_size", "stages", "channels", "val_crop")]
    lengths = ("max_steps", "max_epochs", "max_time", "val_check_interval", "accumulate_grad_batches")
    length = [trainer.get(key) for key in lengths]
    where = [trainer.get(key) for key in ("accelerator", "devices", "num_nodes", "precision", "strategy")]
    execution = [config.get(key) for key in ("compile", "channels_last", "activation_checkpointing")]
    parts = [
        config["network"],
        config["degradation"],
        config["family"]["_target_"],
        (config["family"].get("optimizer") or {}).get("_target_"),
        sorted(config["objective"]),
    ]
    return repr((parts, sizes, length, where, execution))


def measured(jobs: Sequence[Composed], say: Callable[[str], None]) -> dict[str, float]:
    """Hours of each job by its identity, one measurement for each kind."""
    kinds: dict[str, float] = {}
    distinct = {kind(job.config): job for job in jobs}
    for number, (key, job) in enumerate(distinct.items(), 1):
        limit = _time_limit(job.config)
        if limit is None:
            check(job, apart=job.words if len(distinct) > 1 else ())
            say(f"measuring {number} of {len(distinct)} kinds of jobs: {job.config['name']}")
            limit = _measured_hours(job.config)
        kinds[key] = limit
    return {job.identity: kinds[kind(job.config)] for job in jobs}


def known_hours(jobs: Sequence[Composed], limit: float, say: Callable[[str], None]) -> float:
    """Hours of all jobs together; an upper bound, without measuring, if that is within the limit."""
    kinds = {kind(job.config): job for job in jobs}
    most = {key: _time_limit(job.config) or _most_hours(job.config) for key, job in kinds.items()}
    if (total := sum(most[kind(job.config)] for job in jobs)) <= limit:
        return total
    hours = measured(jobs, say)
    return sum(hours[job.identity] for job in jobs)


def _time_limit(config: dict[str, Any]) -> float | None:
    """The time limit of a run in hours; None unless only time ends it."""
    from restora.training.costing import recipe_of

    recipe = recipe_of(OmegaConf.create(config))
    return None if recipe.seconds is None or recipe.steps > 0 else recipe.seconds / 3600


def _most_hours(config: dict[str, Any]) -> float:
    """Hours of a run on a machine that is slower than any real one."""
    from restora.config import build
    from restora.networks.meta import on_meta
    from restora.training.costing import recipe_of
    from restora.training.settings import slow_precision

    node: DictConfig = OmegaConf.create(config)
    recipe = recipe_of(node)
    slower = _SLOW_PRECISION if slow_precision(node) else 1
    network = on_meta(lambda: build(node.network, "network"))
    stages = config["data"]["stages"] or [config["data"]]
    pixels = max(stage["batch_size"] * (stage["patch_size"] // network.scale) ** 2 for stage in stages)
    macs = count_macs(network, height=256, width=256)
    if macs is None:
        return float("inf")
    batches = recipe.steps * recipe.batches_per_step
    return float(slower * _PASSES * macs / 256**2 * pixels * batches / _SLOWEST_MACS / 3600)


def _measured_hours(config: dict[str, Any]) -> float:
    from restora.training.costing import recipe_of, total
    from restora.training.measuring import Measurement

    node: DictConfig = OmegaConf.create(config)
    measurement = Measurement(node, warm_up=1, steps=3)
    cost = total(
        experiment="",
        machine="",
        processes=measurement.processes,
        stages=measurement.stages(),
        validation=measurement.validation(1),
        recipe=recipe_of(node),
    )
    return cost.hours


def disk_bytes(config: dict[str, Any]) -> int:
    """Bytes on disk of a run of the configuration, mostly checkpoints."""
    from restora.config import build
    from restora.networks.meta import on_meta

    network = on_meta(lambda: build(OmegaConf.create(config["network"]), "network"))
    return _BYTES * count_parameters(network)


def show(
    jobs: Sequence[Composed], hours: dict[str, float], settings: dict[str, Any], *, chosen_later: bool = False
) -> None:
    """Prints the table of jobs, and the sums below it."""
    console = Console(highlight=False)
    distinct = {job.identity: job for job in jobs}
    same = Counter(job.identity for job in jobs)
    common = set.intersection(*(set(job.words) for job in jobs))
    if not chosen_later:
        made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        made.add_column("job", no_wrap=True)
        made.add_column("overrides", overflow="fold")
        if folded := len(distinct) < len(jobs):
            made.add_column("same", justify="right")
        made.add_column("time", justify="right", no_wrap=True)
        for position, (key, job) in enumerate(list(distinct.items())[:_LISTED]):
            words = " ".join(short(word) for word in job.words if word not in common)
            number = next(n for n, other in enumerate(jobs) if other.identity == key)
            times = [str(same[key]) if same[key] > 1 else ""] if folded else []
            made.add_row(job.subfolder(number), words, *times, in_words(hours[key]))
            if position == _LISTED - 1 and len(distinct) > _LISTED:
                made.add_row("…", f"and {len(distinct) - _LISTED} more")
        console.print(made)
    count = len(jobs) if chosen_later else len(distinct)
    total = sum(hours[job.identity] for job in (jobs if chosen_later else distinct.values()))
    slots, on_gpu = gpu_slots(jobs[0].config, settings)
    networks = {repr(job.config["network"]): job.config for job in distinct.values()}
    sizes = {network: disk_bytes(config) for network, config in networks.items()}
    size = sum(sizes[repr(job.config["network"])] for job in (jobs if chosen_later else distinct.values()))
    free = shutil.disk_usage(place_of(jobs[0])).free
    repeated = len(jobs) - count
    note = ", chosen as the search goes" if chosen_later else f", {repeated} left out as the same"
    console.print(f"jobs      {count}{note if chosen_later or repeated else ''}")
    kinds = {kind(job.config): job.config for job in distinct.values()}
    limited = all(_time_limit(config) is not None for config in kinds.values())
    how = "by their time limits" if limited else "measured on this machine"
    console.print(f"computing {in_words(total)}{' of GPUs' if on_gpu else ''}, {how}")
    console.print(f"wall time about {in_words(total / slots)}, {slots} at a time")
    needs_gpu = any(config["trainer"].get("accelerator") in ("gpu", "cuda") for config in kinds.values())
    if needs_gpu and not on_gpu and settings["executor"] == "local":
        console.print("device    a GPU, which this machine does not have (trainer=cpu, sweep.executor=slurm)")
    console.print(f"disk      about {_in_bytes(size)}, {_in_bytes(free)} are free")


def place_of(job: Composed) -> Path:
    """The folder on whose disk the sweep would be: the lowest one that exists."""
    job.use(0)
    whole = Path(os.path.abspath(str(OmegaConf.select(job.hydra, "hydra.sweep.dir"))))
    return next(place for place in (whole, *whole.parents) if place.is_dir())


def in_words(hours: float) -> str:
    """75 s, 12 min, 3.1 h."""
    if hours < 2 / 60:
        return f"{3600 * hours:.0f} s"
    return f"{60 * hours:.0f} min" if hours < 1 else f"{hours:.1f} h"


def _in_bytes(size: float) -> str:
    """3 MB, 1.2 GB."""
    return f"{size / 1e9:.{0 if size >= 1e10 else 1}f} GB" if size >= 1e9 else f"{max(size / 1e6, 1):.0f} MB"
