"""Running a sweep that is planned: by its executor, under the lock of its folder."""

import shlex
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from restora.run_state import sole_run
from restora.sweeping import showing
from restora.sweeping.local import Local, Slots, Source, slots_for
from restora.sweeping.plan import Job, Plan


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
        """The others do not mind."""

    def verdict(self, job: Job) -> str | None:  # noqa: ARG002 -- a grid has no favourites
        return None


def run(plan: Plan, source: Source, *, jobs: int, slots: Slots, retry_failed: bool = False) -> int:
    """Runs the jobs of the source, says what happens, and gives the exit code.

    Raises `Occupied` where another process runs the sweep.
    """
    with sole_run(plan.folder):
        teller = showing.Lines(plan, jobs, copy_log=slots.count == 1)
        teller.say(f"{jobs} jobs in {plan.folder}")
        try:
            executor = Local(
                plan, slots, teller, retries=int(plan.settings.get("retries") or 0), retry_failed=retry_failed
            )
            code = executor.run(source)
        finally:
            teller.close()
        showing.show(plan)
        if code >= 128:
            teller.say(f"stopped; go on with: restora sweep {shlex.quote(str(plan.folder))} --resume")
        elif code:
            teller.say(f"try what failed again: restora sweep {shlex.quote(str(plan.folder))} --retry-failed")
        return code


def gpu_slots(config: dict[str, Any], settings: dict[str, Any]) -> tuple[int, bool]:
    """How many jobs run at a time, and whether on GPUs."""
    slots = slots_for_settings(config, settings)
    return slots.count, bool(slots.devices)


def slots_of(plan: Plan, config: dict[str, Any]) -> Slots:
    """The slots of a plan whose jobs are like this configuration."""
    return slots_for_settings(config, plan.settings)


def slots_for_settings(config: dict[str, Any], settings: dict[str, Any]) -> Slots:
    """The slots that the settings ask for, on this machine."""
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
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import os

    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip()]
    return [str(index) for index in range(torch.cuda.device_count())]
