"""The cost of a training step on this machine, measured by training a few steps as `train` does.

Enters: a composed configuration. Leaves: one `StageCost` for each stage of its patches, and the time to
validate a photo. The trainer, the data module and the family are those of a run; records, checkpoints and W&B
are left out. Of several processes one is measured, with its share of a batch, without communication. On a GPU
the steps run twice: once for their time, by the device's own clock and without waiting for it, and once
synchronised after each part for the shares.
"""

import copy
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from omegaconf import DictConfig, ListConfig, OmegaConf

from restora.allocator import keep_freed_memory
from restora.config import ConfigError
from restora.training.build import Parts, build_parts, build_trainer
from restora.training.callbacks import StepSeed
from restora.training.instants import Instant, instant, seconds_between
from restora.training.run import quieten

PARTS = ("data", "degradation", "network", "optimiser")
Progress = Callable[[int, int], None]
"""Called with (batches done, total batches)."""


def _silent(_done: int, _total: int) -> None:
    """Shows nothing."""


@dataclass(frozen=True)
class StageCost:
    """One stage of a recipe, on one process.

    `seconds` holds the time of each batch, `shares` the share of the time by `PARTS`, `memory` the peak in
    bytes: on the GPU (`memory_of` "GPU"), or of this process since its start, earlier stages included
    ("process").
    """

    start_step: int
    patch_size: int
    batch_size: int
    seconds: list[float]
    shares: dict[str, float]
    memory: int
    memory_of: str
    samples_per_second: float


@dataclass(frozen=True)
class Validation:
    """Photos of one validation per process, and seconds per photo including loading and scores.

    The first batch, with its start-up costs, is not counted if there are more.
    """

    photos: int
    seconds_per_photo: float


class StepMeter(Callback):
    """Times the parts of every batch after the first `warm_up`.

    `data` is the time from the end of a batch to the start of the next without the degradation; `optimiser`
    from the end of the backward pass to the end of the update, plus the weights' average; `network` the rest.
    """

    def __init__(self, *, warm_up: int, total: int, divided: bool, progress: Progress) -> None:
        self.warm_up, self.total, self.progress = warm_up, total, progress
        self.divided = divided
        """Whether parts are timed separately, which on a GPU slows the steps down."""
        self._steps: list[tuple[Instant, Instant]] = []
        self.parts: dict[str, float] = dict.fromkeys(PARTS, 0.0)
        self.batches = 0
        self._batch: dict[str, float] = {}
        self._end = self._updating = 0.0
        self._begun: Instant = 0.0

    def watch(self, parts: Parts) -> None:
        """Wraps the degradation and the weights' average to time them."""
        for owner, name, part in (
            (parts.data, "on_after_batch_transfer", "degradation"),
            (parts.family, "update_ema", "optimiser"),
        ):
            setattr(owner, name, self._clocked(getattr(owner, name), part))

    def _clocked(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        def clocked(*arguments: Any, **options: Any) -> Any:
            started = self._now()
            answer = function(*arguments, **options)
            self._add(part, self._now() - started)
            return answer

        return clocked

    def _now(self) -> float:
        if self.divided and torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()

    def _add(self, part: str, seconds: float) -> None:
        self._batch[part] = self._batch.get(part, 0.0) + seconds

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._end, self._begun = self._now(), instant(trainer.strategy.root_device)
        for optimizer in trainer.optimizers:
            optimizer.register_step_post_hook(lambda *_: self._add("optimiser", self._now() - self._updating))

    def on_train_batch_start(
        self, trainer: Trainer, module: LightningModule, batch: Any, batch_index: int
    ) -> None:
        self._add("data", self._now() - self._end - self._batch.get("degradation", 0.0))

    def on_before_optimizer_step(self, trainer: Trainer, module: LightningModule, optimizer: Any) -> None:
        self._updating = self._now()

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_index: int
    ) -> None:
        now = self._now()
        self.batches += 1
        if self.batches > self.warm_up:
            self._add("network", now - self._end - sum(self._batch.values()))
            self._steps.append((self._begun, instant(trainer.strategy.root_device)))
            for part, seconds in self._batch.items():
                self.parts[part] += seconds
        self._batch = {}
        self.progress(self.batches, self.total)
        self._end, self._begun = self._now(), instant(trainer.strategy.root_device)

    def seconds(self) -> list[float]:
        """The time of each batch, once all have ended."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        taken = [seconds_between(*step) for step in self._steps]
        return [seconds for seconds in taken if seconds is not None]

    def shares(self) -> dict[str, float]:
        """The share of the time of each part; they sum to 1."""
        total = sum(self.parts.values())
        return {part: seconds / total for part, seconds in self.parts.items()}


class PhotoMeter(Callback):
    """Times every batch of a validation, from the end of the previous batch."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, float]] = []
        """Photos and seconds."""
        self._end = 0.0

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._end = time.perf_counter()

    def on_validation_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        now = time.perf_counter()
        self.batches.append((len(batch.degraded), now - self._end))
        self._end = now

    def seconds_per_photo(self) -> float:
        photos, seconds = zip(*(self.batches[1:] or self.batches), strict=True)
        return float(sum(seconds) / sum(photos))


@dataclass
class Measurement:
    """How a configuration is measured: per stage `warm_up` batches that do not count, then `steps`."""

    config: DictConfig
    warm_up: int = 3
    steps: int = 20
    progress: Progress = _silent

    def __post_init__(self) -> None:
        if self.config.resume is not None:
            raise ConfigError("bench starts a run of its own: leave resume out")
        self.processes = processes_of(self.config)
        self.config = copy.deepcopy(self.config)
        self.config.trainer.update(devices=1, num_nodes=1, strategy="auto")
        keep_freed_memory()
        quieten(self.config)

    def stages(self) -> list[StageCost]:
        """The cost of each stage of the recipe, in order."""
        given = OmegaConf.to_container(self.config.data, resolve=False)
        assert isinstance(given, dict)
        whole = {"start_step": 0, "patch_size": given["patch_size"], "batch_size": given["batch_size"]}
        return [self._stage(**{str(k): int(v) for k, v in s.items()}) for s in given["stages"] or [whole]]

    def validation(self, limit: int) -> Validation | None:
        """The cost of validation, measured on at most `limit` batches; None for a recipe without it."""
        if limit == 0 or self.config.trainer.limit_val_batches == 0:
            return None
        meter = PhotoMeter()
        with self._trainer(self.config, [meter], limit_val_batches=limit) as (trainer, parts):
            trainer.validate(parts.family, parts.data, verbose=False)
            dataset: Any = parts.data.val_dataloader().dataset
        listed = self.config.trainer.limit_val_batches
        if isinstance(listed, float):  # Lightning: a number, or a share
            listed = int(listed * len(dataset))
        photos = sum(map(len, dataset.batches[:listed]))
        return Validation(-(-photos // self.processes), meter.seconds_per_photo())

    def _stage(self, start_step: int, patch_size: int, batch_size: int) -> StageCost:
        if batch_size % self.processes:
            raise ConfigError(
                f"data.batch_size={batch_size} is shared by {self.processes} processes: set a multiple of "
                f"{self.processes}"
            )
        config, batch_size = copy.deepcopy(self.config), batch_size // self.processes
        OmegaConf.update(config, "data.stages", None)
        config.data.patch_size, config.data.batch_size = patch_size, batch_size
        on_gpu = torch.cuda.is_available() and config.trainer.accelerator in ("gpu", "cuda", "auto")
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        free = self._fit(config, divided=not on_gpu)
        divided = self._fit(config, divided=True) if on_gpu else free
        memory = torch.cuda.max_memory_allocated() if on_gpu else _resident_bytes()
        seconds = free.seconds()
        return StageCost(
            start_step=start_step,
            patch_size=patch_size,
            batch_size=batch_size,
            seconds=seconds,
            shares=divided.shares(),
            memory=memory,
            memory_of="GPU" if on_gpu else "process",
            samples_per_second=batch_size * len(seconds) / sum(seconds),
        )

    def _fit(self, config: DictConfig, *, divided: bool) -> StepMeter:
        total = self.warm_up + self.steps
        meter = StepMeter(warm_up=self.warm_up, total=total, divided=divided, progress=self.progress)
        callbacks = [StepSeed(seed=config.seed), meter]
        accumulated = config.trainer.accumulate_grad_batches
        steps = -(-total // accumulated)
        with self._trainer(config, callbacks, max_steps=steps, max_time=None, limit_val_batches=0) as (
            trainer,
            parts,
        ):
            meter.watch(parts)
            parts.data.overlap = not divided
            trainer.fit(parts.family, parts.data)
        return meter

    def _trainer(self, config: DictConfig, callbacks: list[Callback], **changes: Any) -> "_Trial":
        return _Trial(config, callbacks, changes)


def processes_of(config: DictConfig) -> int:
    """The number of processes of a run by its configuration, on machines like this one."""
    devices = config.trainer.devices
    if devices in ("auto", -1, "-1"):
        on_cpu = config.trainer.accelerator == "cpu"
        devices = 1 if on_cpu else max(torch.cuda.device_count(), 1)
    elif isinstance(devices, str) and "," in devices:
        devices = devices.strip(",").split(",")
    count = len(devices) if isinstance(devices, list | ListConfig) else int(devices)
    return count * int(config.trainer.num_nodes)


class _Trial:
    """A context manager for a trainer and the parts of a run, in a temporary folder."""

    def __init__(self, config: DictConfig, callbacks: list[Callback], changes: dict[str, Any]) -> None:
        self.config, self.callbacks = copy.deepcopy(config), callbacks
        OmegaConf.set_struct(self.config, False)
        quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "log_every_n_steps": 1_000_000}
        for key, value in (quiet | changes).items():
            OmegaConf.update(self.config.trainer, key, value, force_add=True)
        self.folder = tempfile.TemporaryDirectory(prefix="restora-bench-")
        self.config.run_dir = self.folder.name

    def __enter__(self) -> tuple[Trainer, Parts]:
        parts = build_parts(self.config)
        return build_trainer(self.config, parts.family, self.callbacks, []), parts

    def __exit__(self, *_: object) -> None:
        self.folder.cleanup()


def _resident_bytes() -> int:
    """The peak resident memory of this process in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
