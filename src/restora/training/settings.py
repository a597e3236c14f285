"""The settings of a run that belong to no part: their types, the trainer's options, and the estimated cost.

The arguments of a part are checked against its constructor when it is built; all other settings here.
"""

import difflib
import logging
import time
import warnings
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import torch
from lightning.pytorch import Trainer
from omegaconf import DictConfig, OmegaConf

from restora import vocabulary
from restora.arguments import check_arguments, fits, shown, wanted
from restora.config import ConfigError, build
from restora.training.record import RunInfo
from restora.training.tracking import wandb_log

_SETTINGS: dict[str, Any] = {
    "task": str,
    "seed": int,
    "resume": str | None,
    "threads": int | None,
    "recipe_batch": int | str | None,
    "channels_last": bool,
    "compile": bool | str,
    "activation_checkpointing": bool,
    "init.source": str | None,
    "init.skip": list[str],
    "init.strict": bool,
    "init.stage": str | None,
    "leakage.check": bool,
    "leakage.testsets": str | None,
    "leakage.folders": list[str],
    "leakage.max_seconds": float,
}
_NOT_IN_PROJECTS = "/\\#?%:"
"""Characters that W&B refuses in the name of a project."""
_OURS = ("callbacks", "logger", "default_root_dir", "use_distributed_sampler", "enable_checkpointing")
"""Arguments of the trainer that a configuration may not set."""
_LIMITS = {
    "limit_train_batches": "train",
    "limit_val_batches": "validate",
    "limit_test_batches": "test",
}
"""The options that may leave batches out, and what is done with those that are left."""
_COUNTS = ("val_check_interval", "check_val_every_n_epoch", "log_every_n_steps", "accumulate_grad_batches")
_LARGEST_SEED = 2**32 - 1
"""NumPy's limit."""
_PATIENCE = 4.0
"""Seconds; after a first pass longer than this, no second, warm pass is measured."""


def check_settings(config: DictConfig, *, here: bool = True) -> None:
    """Raises `ConfigError` with key, value and the expected type; `here` as in `trainer_options`."""
    for key, hint in _SETTINGS.items():
        value = OmegaConf.select(config, key)
        value = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
        if not fits(value, hint):
            raise ConfigError(f"{key}={shown(value)}: expected {wanted(hint)}")
    for group in ("init", "leakage"):
        known = {key.partition(".")[2] for key in _SETTINGS if key.startswith(f"{group}.")}
        if unknown := [key for key in map(str, config[group]) if key not in known]:
            raise ConfigError(f"{group}.{unknown[0]}: nothing reads it; there are {', '.join(sorted(known))}")
    if not 0 <= config.seed <= _LARGEST_SEED:
        raise ConfigError(f"seed={config.seed}: expected a whole number from 0 to {_LARGEST_SEED}")
    vocabulary.check_threads(config.threads)
    batch = config.recipe_batch
    if batch not in ("auto", None) and (type(batch) is not int or batch < 1):
        raise ConfigError(f"recipe_batch={batch}: expected a whole number of 1 or more, auto or null")
    near = difflib.get_close_matches(config.task, vocabulary.TASKS, n=1, cutoff=0.8)
    if near and config.task not in vocabulary.TASKS:
        raise ConfigError(f"task={config.task}: did you mean task={near[0]}?")
    for key in _OURS:
        if key in config.trainer:
            raise ConfigError(f"trainer.{key} is not a setting: a run sets it itself")
    logger: Any = OmegaConf.to_container(config.logger, resolve=True)
    values = {key: value for key, value in logger.items() if key != "photos"}
    check_arguments(wandb_log, values, where="logger", name="W&B", partial=True)
    if not fits(logger.get("photos"), int) or logger["photos"] < 0:
        raise ConfigError(f"logger.photos={shown(logger.get('photos'))}: expected a whole number from 0 up")
    project = logger.get("project") or ""
    if logger.get("mode") != "disabled" and any(letter in _NOT_IN_PROJECTS for letter in project):
        raise ConfigError(
            f"logger.project={project}: W&B's projects have none of {_NOT_IN_PROJECTS} in a name"
        )
    _check_length(trainer_options(config, here=here), int(config.data.steps_per_epoch))


def trainer_options(config: DictConfig, *, here: bool = True) -> dict[str, Any]:
    """The arguments of Lightning's Trainer, with its types and names. Raises `ConfigError`.

    Unless the run is `here`, its machine may have a GPU that this one does not have.
    """
    options: Any = OmegaConf.to_container(config.trainer, resolve=True)
    length = vocabulary.seconds(options.get("max_time"), "trainer.max_time")
    options["max_time"] = None if length is None else timedelta(seconds=length)
    options["precision"] = _precision(options, here=here)
    check_arguments(Trainer, options, where="trainer", name="the trainer")
    return dict(options)


def _precision(options: dict[str, Any], *, here: bool) -> Any:
    """The trainer's precision by Lightning's name. Raises `ConfigError`."""
    device = _device(options["accelerator"], here=here)
    try:
        found = vocabulary.trainer_precision(options.get("precision"), device)
    except ValueError as error:
        raise ConfigError(f"trainer.{error}") from error
    if found == "16-mixed" and device == "cpu":
        raise ConfigError(
            "training in float16 does not work on a CPU: set precision=bf16 or precision=float32"
        )
    return found


def _device(accelerator: str, *, here: bool = True) -> str:
    """The type of device that an accelerator stands for; unless `here`, `auto` may be a GPU."""
    if accelerator != "auto":
        return accelerator
    if not here:
        return "gpu"
    found = torch.accelerator.current_accelerator(check_available=True)
    return "cpu" if found is None else found.type


def settle_precision(config: DictConfig, info: RunInfo, earlier: Mapping[str, Any]) -> None:
    """Sets what `trainer.precision=auto` is on this machine in `config`, and the run's precision in `info`.

    A run of before keeps its precision on whatever machine it is resumed, unless `auto` is typed for it now;
    `earlier` is its record. The recorded configuration says what was asked for, so `auto` stays in it, and a
    command means the same run on every machine. Raises `ConfigError`.
    """
    word = f"trainer.precision={vocabulary.AUTO}"
    typed_now = word in info.overrides and word not in str(earlier.get("overrides"))
    if config.trainer.precision == vocabulary.AUTO and not typed_now:
        asked = _asked_precision(earlier)
        if asked not in (None, vocabulary.AUTO):  # by the recipe at that time
            info.config["trainer"]["precision"] = asked
        if before := earlier.get("precision") or asked:
            config.trainer.precision = _known(before)
    info.precision = trainer_options(config)["precision"]
    if config.trainer.precision == vocabulary.AUTO:
        config.trainer.precision = info.precision


def _asked_precision(record: Mapping[str, Any]) -> Any:
    trainer = config.get("trainer") if isinstance(config := record.get("config"), dict) else None
    return trainer.get("precision") if isinstance(trainer, dict) else None


def _known(precision: Any) -> Any:
    """The precision of a record, which may be anybody's. Raises `ConfigError` for what is none."""
    try:
        vocabulary.precision(precision, "cpu")
    except ValueError as error:
        raise ConfigError(f"run.json has {error}") from error
    return precision


def slow_precision(config: DictConfig) -> str:
    """What to say of a run in a precision that is slow on this machine; empty for others."""
    options = trainer_options(config)
    device = _device(options["accelerator"])
    return vocabulary.slow_precision(vocabulary.precision(options["precision"], device), device)


def keep_lightning_quiet() -> None:
    """Silences Lightning's messages on available devices, packages to install, and signals."""
    for name in ("utilities.rank_zero", "accelerators.cuda", "trainer.connectors.signal_connector"):
        logging.getLogger(f"lightning.pytorch.{name}").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*`srun` command is available.*")  # on a cluster's login node


def _check_length(options: dict[str, Any], steps_per_epoch: int) -> None:
    """Raises `ConfigError` for a run without training, validation or test, or one that would fail midway."""
    for key in _LIMITS:
        if options.get(key) in (0, 0.0):
            raise ConfigError(
                f"trainer.{key}={options[key]} leaves nothing to {_LIMITS[key]} on: a run is trained, "
                "chosen by validation and reported on held-out photos; set 1 or more"
            )
    if options.get("overfit_batches"):
        raise ConfigError(
            f"trainer.overfit_batches={options['overfit_batches']} would validate on training crops: to see "
            "a network fit few photos, set data=folder data.source.root=FOLDER with a few in it"
        )
    if options.get("reload_dataloaders_every_n_epochs"):
        raise ConfigError(
            "trainer.reload_dataloaders_every_n_epochs: crops are a function of the step already"
        )
    for key in ("max_steps", "max_epochs"):
        if options.get(key) == 0:
            raise ConfigError(f"trainer.{key}=0 trains nothing: set 1 or more")
    for key in _COUNTS:
        if options.get(key) is not None and options[key] <= 0:
            raise ConfigError(f"trainer.{key}={options[key]}: expected 1 or more")
    if (clip := options.get("gradient_clip_val")) is not None and clip <= 0:
        raise ConfigError(
            f"trainer.gradient_clip_val={clip}: expected a number above 0, or null to clip nothing"
        )
    interval = options.get("val_check_interval")
    every = options.get("check_val_every_n_epoch")
    if every is not None and type(interval) is int and interval > steps_per_epoch:
        raise ConfigError(
            f"trainer.val_check_interval={interval} is more than the {steps_per_epoch} batches of an epoch: "
            "set trainer.check_val_every_n_epoch=null to count over epochs"
        )


def no_gpu(config: DictConfig) -> str:
    """The message on a missing GPU: the estimated time on this CPU, and where to find CPU recipes."""
    kind = config.trainer.accelerator
    return (
        f"trainer.accelerator={kind}, but this machine has no GPU: set trainer=cpu, with which "
        f"{_cost(config)}. "
        "For a CPU see experiments=quickstart/… (`restora experiments` lists all with their cost); "
        "debug=fast tries this one for 3 steps"
    )


def _cost(config: DictConfig) -> str:
    steps = int(config.trainer.max_steps)
    each = step_seconds(config) * _mean_batch(config, steps)
    how = "measured by patches through the network and back"
    if steps <= 0:
        return f"a step takes about {vocabulary.about(each)} here ({how})"
    length = vocabulary.seconds(config.trainer.max_time, "trainer.max_time")
    whole = steps * each if length is None else min(steps * each, length)
    return f"{steps:,} steps at about {vocabulary.about(each)} here take {vocabulary.about(whole)} ({how})"


def _mean_batch(config: DictConfig, steps: int) -> float:
    """Pixels of the mean batch relative to a batch of `data.batch_size` patches, for a recipe with stages."""
    if not config.data.stages:
        return 1.0
    stages = [dict(stage) for stage in config.data.stages]
    ends = [stage["start_step"] for stage in stages[1:]] + [max(steps, stages[-1]["start_step"] + 1)]
    pixels = sum(
        (end - stage["start_step"]) * stage["batch_size"] * stage["patch_size"] ** 2
        for stage, end in zip(stages, ends, strict=True)
    )
    return float(pixels / ends[-1] / (config.data.batch_size * config.data.patch_size**2))


def step_seconds(config: DictConfig) -> float:
    """Estimated seconds of a training step on this CPU: the network's passes on a sample, times the batch.

    Degradation, discriminator and optimiser are left out; `restora bench` measures all parts.
    """
    vocabulary.use_threads(config.threads)
    network = build(config.network, "network").train()
    side = int(config.data.patch_size) // network.scale
    x = torch.rand(2, network.in_channels, side, side)  # batch norm needs more than one value
    planes = network.condition_channels
    condition = torch.rand(2, planes, side, side) if planes else None
    seconds: list[float] = []
    while len(seconds) < 2 and sum(seconds) < _PATIENCE:
        started = time.perf_counter()
        restored = network(x, condition)
        (restored[0] if isinstance(restored, tuple | list) else restored).mean().backward()
        seconds.append(time.perf_counter() - started)
    accumulated = int(config.trainer.accumulate_grad_batches)
    return min(seconds) / len(x) * int(config.data.batch_size) * accumulated
