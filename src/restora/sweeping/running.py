"""Runs a planned sweep with its executor, under the lock of its folder."""

import shlex
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from restora.config import ConfigError
from restora.run_state import sole_run
from restora.sweeping import showing
from restora.sweeping.executor import Executor, Slots, Source, Teller, slots_for
from restora.sweeping.plan import Job, Plan
from restora.words import counted

EXECUTORS = ("local", "slurm", "ray")


@dataclass
class Listed:
    """The jobs of a grid, in their order."""

    jobs: deque[Job] = field(default_factory=deque)

    @classmethod
    def of(cls, jobs: Iterable[Job]) -> "Listed":
        return cls(deque(jobs))

    def next(self) -> Job | None:
        return self.jobs.popleft() if self.jobs else None

    def ended(self, job: Job, state: str, record: dict[str, Any]) -> None:
        """Does nothing: the jobs of a grid are independent."""

    def verdict(self, job: Job) -> str | None:  # noqa: ARG002 -- a grid prunes no jobs
        return None


def run(plan: Plan, source: Source, *, jobs: int, config: dict[str, Any], retry_failed: bool = False) -> int:
    """Runs the jobs of the source, shows the events, and returns the exit status; `config` is a job's.

    Raises `Occupied` if another process runs the sweep.
    """
    with sole_run(plan.folder):
        here, slots = plan.settings["executor"] == "local", slots_for_settings(config, plan.settings)
        teller = showing.Lines(plan, jobs, copy_log=here and slots.count == 1)
        teller.say(f"{counted(jobs, 'job')} in {plan.folder}")
        try:
            executor = executor_of(plan, slots, teller, jobs=jobs, config=config)
            executor.retries, executor.retry_failed = int(plan.settings.get("retries") or 0), retry_failed
            code = executor.run(source)
        finally:
            teller.close()
        showing.show(plan)
        words = shlex.join([str(plan.folder), *(f"--plugin={name}" for name in plan.plugins)])
        if code >= 128:
            teller.say(f"stopped; resume with: restora sweep {words} --resume")
        elif code and plan.settings["search"] is None:
            teller.say(f"retry the failed jobs with: restora sweep {words} --retry-failed")
        return code


def check_executor(settings: Mapping[str, Any]) -> None:
    """Raises `ConfigError` for settings that no executor supports."""
    name, several = settings["executor"], settings["search"] is not None
    if name not in EXECUTORS:
        raise ConfigError(f"sweep.executor must be one of {', '.join(EXECUTORS)}, got {name!r}")
    for key, least in (("slots", 1), ("retries", 0), ("limit_hours", 0)):
        value = settings.get(key)
        number = isinstance(value, int | float if key == "limit_hours" else int)
        if value is not None and (not number or isinstance(value, bool) or value < least):
            what = "a number" if key == "limit_hours" else "a whole number"
            null = "" if key == "retries" else ", or null"
            raise ConfigError(f"sweep.{key} must be {what} from {least} on{null}, got {value!r}")
    if settings["detach"] and (name != "slurm" or several):
        what = "a search chooses its jobs as it goes" if several else f"the executor {name} has no queue"
        raise ConfigError(f"sweep.detach=true is for a grid on SLURM: {what}")
    if settings["options"] and name == "local":
        raise ConfigError("sweep.options are those of sbatch or of Ray: set sweep.executor=slurm or ray")


def executor_of(plan: Plan, slots: Slots, teller: Teller, *, jobs: int, config: dict[str, Any]) -> Executor:
    """The executor of the plan."""
    settings = plan.settings
    check_executor(settings)
    options, count = dict(settings["options"]), settings["slots"]
    if settings["executor"] == "slurm":
        from restora.sweeping.slurm import Slurm

        at_once = Slots(jobs if settings["search"] is None else int(count or 1))
        detach = bool(settings["detach"])
        return Slurm(plan, at_once, teller, options=options, detach=detach, parallel=count)
    if settings["executor"] == "ray":
        from restora.sweeping.on_ray import OnRay

        return OnRay(plan, Slots(), teller, options=options, count=count, config=config)
    from restora.sweeping.local import Local

    return Local(plan, slots, teller)


def gpu_slots(config: dict[str, Any], settings: dict[str, Any]) -> tuple[int, bool]:
    """The number of jobs at a time, and whether they run on GPUs."""
    slots = slots_for_settings(config, settings)
    return slots.count, bool(slots.devices)


def slots_for_settings(config: dict[str, Any], settings: dict[str, Any]) -> Slots:
    """The slots of the settings on this machine."""
    trainer = config.get("trainer") or {}
    gpus: list[str] = []
    if trainer.get("accelerator") in ("gpu", "cuda", "auto"):
        gpus = visible_gpus()
    devices = trainer.get("devices")
    each = (
        devices if isinstance(devices, int) and devices > 0 else len(gpus) if devices in ("auto", -1) else 1
    )
    return slots_for(settings.get("slots"), gpus=gpus, devices=max(int(each), 1))


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, named as in CUDA_VISIBLE_DEVICES."""
    import os

    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip()]
    return [str(index) for index in range(torch.cuda.device_count())]
