"""From a composed configuration to the objects of a run.

Everything that the training command builds is built here.
"""

import copy
import inspect
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf

from restora import registry
from restora.arguments import shown
from restora.artifact.sources import open_source
from restora.config import ConfigError, build, missing_keys
from restora.data.module import PhotoData
from restora.degradations.base import Degradation
from restora.evaluation.protocol import Protocol
from restora.evaluation.scorer import LOSS, Scorer, check_monitored
from restora.families.base import Family
from restora.monitor import Direction, Monitor, direction_of
from restora.networks.base import Network, checked
from restora.networks.meta import on_meta
from restora.objectives.base import Noise, Objective, Setting
from restora.photos.reading import channel_count, channel_word
from restora.training.callbacks import ExactProducts
from restora.training.devices import check_launch, check_strategy
from restora.training.initial import Initial, check_stage, initial_weights
from restora.training.leakage import named_folders
from restora.training.profiling import Unprofiled
from restora.training.settings import check_settings, keep_lightning_quiet, no_gpu, trainer_options
from restora.training.trying import try_degradation, try_network, try_schedule

_GPUS = ("gpu", "cuda", "mps")
_CHOOSE = "choose one of those that `restora train --help` names"
_SECTIONS = {
    "data": _CHOOSE,
    "degradation": _CHOOSE,
    "network": _CHOOSE,
    "family": _CHOOSE,
    "trainer": _CHOOSE,
    "callbacks": "switch off the one you mean, callbacks.NAME=null",
    "logger": "W&B is off with logger.mode=disabled",
    "leakage": "the comparison is off with leakage.check=false",
    "monitor": "the metric is monitor.metric=val/psnr",
    "protocol": "the planes that are scored are protocol.color=y",
}
"""Sections that every configuration needs, with advice for the message about a missing one."""
_PARTS = ("data", "degradation", "network", "family")
"""Those that describe a part: without its name, what is left of one was set beside it."""


@dataclass
class Parts:
    """The network, the recipe and the data of a run."""

    network: Network
    family: Family
    data: PhotoData
    initial: Initial | None = None
    """The weights that the network starts from; None for its own initialisation."""


def build_parts(config: DictConfig, *, goes_on: bool = False) -> Parts:
    """Builds the objects in the order of their dependencies; conflicts between them raise `ConfigError`.

    If a run `goes_on`, no initial weights are loaded, as they come from its checkpoint.
    """
    degradation: Degradation = build(config.degradation, "degradation")
    data: PhotoData = build(config.data, "data", degradation=degradation)
    network = build_network(config.network)
    check_together(network, data, config.get("objective"))
    family: Family = build_family(config, network, build_objectives(config), data)
    family.check(_setting(network, data))
    initial = None if goes_on else initial_weights(config, network)
    if initial is not None:
        initial.give(family)
    family.adapt()
    return Parts(network, family, data, initial)


def check_before_training(config: DictConfig, *, here: bool = True) -> None:
    """Builds what is cheap to build and raises `ConfigError` (a `ValueError`) for what cannot work.

    `here`: the run is on this machine, not on one that a launcher chooses.
    """
    plain: Any = OmegaConf.to_container(config, resolve=False)
    for name, fix in _SECTIONS.items():
        value = plain.get(name)
        if value is None or (name in _PARTS and "_target_" not in value):
            raise ConfigError(f"{name} cannot be left out: {fix}")
        if not isinstance(value, dict):
            raise ConfigError(f"{name}={shown(value)}: it has keys of its own: {fix}")
    missing = sorted(set(missing_keys(config)) - {"run_dir"})  # `run_dir` is only known when a run starts
    if missing:
        raise ConfigError(
            "no value for " + ", ".join(missing) + ": set " + " ".join(f"{key}=…" for key in missing)
        )
    check_settings(config, here=here)
    data: PhotoData = build(config.data, "data", degradation=build(config.degradation, "degradation"))
    network = build_on_meta(config.network)
    check_together(network, data, config.get("objective"))
    try_network(network, data, lambda: build_network(config.network))
    try_degradation(data)
    teachers = _with_teachers(config)
    objectives = build_objectives(config, teachers, weightless=True)
    with torch.device("meta"):
        family = build_family(config, network, objectives, data)
    if config.resume is None:
        check_stage(config)
        initial_weights(config, network)
    with torch.device("meta"):
        family.adapt()
    family.check(_setting(network, data))
    check_adapters(config)
    check_optimisation(config, family)
    data.check_processes(check_trainer(config, family, here=here).world_size)
    data.source.check()
    if config.leakage.check:
        named_folders(list(config.leakage.folders))


def build_objectives(
    config: DictConfig, nodes: dict[str, Any] | None = None, *, weightless: bool = False
) -> dict[str, Objective]:
    """The objectives by name, in the order of the configuration; `weightless` on the meta device.

    `nodes` are the objectives' configurations with their teachers loaded; None loads the teachers.
    """
    parts: dict[str, Objective] = {}
    for name, node in (_with_teachers(config) if nodes is None else nodes).items():
        extra = {"teacher": node.pop("teacher")} if "teacher" in node else {}
        make = partial(build, node, "objective", where=f"objective.{name}", **extra)
        parts[name] = on_meta(make) if weightless else make()
    return parts


def _with_teachers(config: DictConfig) -> dict[str, Any]:
    """The objectives' configurations, with the source of each `teacher` replaced by the loaded network."""
    objective = config.get("objective")
    if not isinstance(objective, DictConfig) or not objective:
        raise ConfigError("objective cannot be left out: set objective=supervised, or a list of several")
    nodes: Any = OmegaConf.to_container(objective, resolve=True)
    for name, node in nodes.items():
        if not isinstance(node, dict) or "_target_" not in node:
            if "_target_" in nodes:
                raise ConfigError(
                    f"the file of the objective {nodes['_target_']} has defaults, so its other keys stand "
                    f"under its name: {nodes['_target_']}: {{_target_: {nodes['_target_']}, …}}"
                )
            near = ", ".join(registry.names("objective"))
            raise ConfigError(
                f"objective.{name} is not an objective: choose objective=NAME, one or more of {near}"
            )
        if "teacher" in node:
            node["teacher"] = open_source(str(node["teacher"])).network
    return dict(nodes)


def build_family(
    config: DictConfig, network: Network, objectives: dict[str, Objective], data: PhotoData
) -> Family:
    """Builds the family with the network and the objectives."""
    monitored = Monitor.of(OmegaConf.to_container(config, resolve=False)).name  # type: ignore[arg-type]
    node: Any = OmegaConf.to_container(config.family, resolve=True)
    node.pop("loss", None)  # it is part of the objectives
    family: Family = build(
        node,
        "family",
        network=network,
        objective=objectives,
        scorer=_scorer(config, network, has_clean=data.has_clean),
        validation_loss=monitored == LOSS or not data.has_clean,
        **_execution(config),
    )
    return family


def _scorer(config: DictConfig, network: Network, *, has_clean: bool) -> Scorer:
    """The protocol and metrics of validation and test, including the monitored one."""
    node: Any = OmegaConf.to_container(config, resolve=False)
    monitor = Monitor.of(node)
    check_monitored(monitor, has_clean=has_clean)
    protocol = Protocol.of_run(node.get("protocol"), channels=network.frame_channels, scale=network.scale)
    return Scorer(
        protocol=protocol,
        metrics=tuple(name for name in dict.fromkeys(("psnr", "ssim", monitor.name)) if name != LOSS),
    )


def _setting(network: Network, data: PhotoData) -> Setting:
    made = data.degradation
    noise = Noise(
        name=f"the degradation {type(made).__name__}",
        centres=made.centres,
        independent=made.independent,
        gaussian=made.gaussian,
    )
    smallest = min(data.stages, key=lambda stage: (stage.patch_size, stage.batch_size))
    return Setting(
        network=network,
        patch_size=smallest.patch_size,
        batch_size=smallest.batch_size,
        has_clean=data.has_clean and not data.unpaired,
        unpaired=data.unpaired,
        undamaged=data.undamaged,
        noise=None if data.comes_degraded else noise,
        noisy_target=data.target == "noisy",
    )


def build_on_meta(config: DictConfig) -> Network:
    """The network on the meta device, without memory for its weights."""
    return on_meta(lambda: build_network(config))


def build_network(config: DictConfig) -> Network:
    """The network with its own initialisation. Raises `ConfigError` for anything but a network."""
    try:
        return checked(build(config, "network"))
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _network_of(network: Network, scale: int) -> str:
    """How to get a network that enlarges by `scale`."""
    if "scale" in inspect.signature(type(network).__init__).parameters:
        return f"set network.scale={scale}"
    if scale == 1:
        return "choose a network that keeps the size"
    return f"choose a network that enlarges, such as network=edsr_baseline network.scale={scale}"


def _channel_settings(network: Network, objectives: Any, channels: int) -> str:
    """The settings with which the network and the discriminators take and give so many channels."""
    known = inspect.signature(type(network).__init__).parameters
    found = [f"network.in_channels={channels * network.frames}"]
    if network.out_channels != channels and "out_channels" in known:
        found.append(f"network.out_channels={channels}")
    for name, node in _nodes(objectives):
        takes = 2 * channels if node.get("conditional") else channels
        for key, part in _nodes(node):
            if key.endswith("discriminator") and part.get("in_channels") != takes:
                found.append(f"objective.{name}.{key}.in_channels={takes}")
    return " ".join(found)


def _nodes(config: Any) -> Iterator[tuple[str, DictConfig]]:
    """The configurations right below one, by their keys; anything else in it is refused when it is built."""
    if isinstance(config, DictConfig):
        yield from ((str(key), node) for key, node in config.items() if isinstance(node, DictConfig))


def check_together(network: Network, data: PhotoData, objectives: Any = None) -> None:
    """Raises `ConfigError` if network and data differ in scale, condition or channels.

    The message on channels also names the discriminators in the configuration of the `objectives`.
    """
    scale = data.scale
    if network.scale != scale:
        other, kept = _network_of(network, scale), f"scale {network.scale}"
        if data.source.paired:
            raise ConfigError(
                f"the network enlarges ×{network.scale}, and the pairs differ ×{scale} in size: {other}, or "
                f"pairs with {kept}"
            )
        raise ConfigError(
            f"the network enlarges ×{network.scale}, but the degradation reduces photos ×{scale}: {other}, "
            f"or choose a degradation with {kept}"
        )
    given, wanted = data.condition_channels, network.condition_channels
    if wanted and given != wanted:
        raise ConfigError(
            f"the network needs a condition of {wanted} channel(s), the degradation gives {given or 'none'}: "
            "choose a degradation with a noise level or a mask, or set network.condition_channels"
        )
    channels = channel_count(data.channels)
    if network.frames != data.frames:
        raise ConfigError(
            f"the network takes {network.frames} frame(s) of a video, the data give {data.frames}: set "
            f"data.frames={network.frames}, or choose another network"
        )
    if network.in_channels != channels * network.frames:
        raise ConfigError(
            f"the network takes {network.in_channels} channel(s), the photos have "
            f"{channels * network.frames}: set "
            f"{_channel_settings(network, objectives, channels)}, "
            f"or data.channels={channel_word(network.frame_channels)}"
        )
    if network.out_channels != channels:
        raise ConfigError(
            f"the network gives {network.out_channels} channel(s), the photos have {channels}: set "
            f"network.out_channels={channels}, or choose a network that gives as many"
        )


def check_trainer(config: DictConfig, family: Family, *, here: bool) -> Trainer:
    """Makes the trainer with its callbacks, and raises `ConfigError` for what it refuses.

    If the run is `here`, also for a device that this machine does not have.
    """
    keep_lightning_quiet()
    config = copy.deepcopy(config)
    OmegaConf.set_struct(config, False)
    config.run_dir = tempfile.gettempdir()
    if not here:
        on_cpu = {"accelerator": "cpu", "devices": 1, "num_nodes": 1, "strategy": "auto"}
        config.trainer.update({**on_cpu, "precision": "32-true"})
    callbacks = build_callbacks(config)
    names = [name for name, node in config.callbacks.items() if node is not None]
    for name, callback in zip(map(str, names), callbacks, strict=True):
        check_watched(name, callback, family)
    try:
        return build_trainer(config, family, callbacks, [])
    except (MisconfigurationException, RuntimeError, TypeError, ImportError) as error:
        raise ConfigError(f"trainer: {error}") from error


def check_adapters(config: DictConfig) -> None:
    """Raises `ConfigError` for adapters without initial weights: they keep the network's own frozen."""
    if config.family.get("adapters") is not None and config.resume is None and config.init.source is None:
        raise ConfigError("family.adapters leaves the network as it starts: add init=SOURCE")


def check_optimisation(config: DictConfig, family: Family) -> None:
    """Raises `ConfigError` for an invalid optimiser or schedule.

    Also for trainer options that do not work with objectives that have parameters of their own.
    """
    for name, opponent in family.opponents.items():
        try:
            opponent.make_optimizer()
        except (TypeError, ValueError) as error:
            raise ConfigError(f"objective.{name}.optimizer: {error}") from error
    try:
        family.configure_optimizers()
    except (TypeError, ValueError) as error:
        raise ConfigError(f"family.optimizer: {error}") from error
    try_schedule(family.schedule)
    clip = config.trainer.get("gradient_clip_val")
    if clip is not None and (theta := config.family.get("adjustable_clip")) is not None:
        raise ConfigError(
            f"family.adjustable_clip={theta} clips in place of trainer.gradient_clip_val={clip}: set one of "
            "them to null"
        )
    if not family.opponents:
        return
    several = " and ".join(family.opponents)
    if clip is not None:
        raise ConfigError(
            f"trainer.gradient_clip_val={clip} cannot clip the optimisers of the network and of {several}: "
            f"set trainer.gradient_clip_val=null and family.gradient_clip={clip}"
        )
    if config.trainer.get("accumulate_grad_batches", 1) != 1:
        raise ConfigError(
            f"objective {several} takes a half-step of its own on each batch: set "
            "trainer.accumulate_grad_batches=1"
        )


def _execution(config: DictConfig) -> dict[str, Any]:
    return {
        "channels_last": config.channels_last,
        "compile_network": config.compile,
        "activation_checkpointing": config.activation_checkpointing,
        "sync_batchnorm": config.trainer.get("sync_batchnorm", True),
    }


def build_callbacks(config: DictConfig) -> list[Callback]:
    """Builds the callbacks of the configuration; null entries are left out."""
    for name, node in config.callbacks.items():
        if node is not None and not (isinstance(node, DictConfig) and "_target_" in node):
            raise ConfigError(
                f"callbacks.{name}={shown(node)} is not a callback: it needs a _target_, or null to "
                "leave it out"
            )
    return [
        build(node, "callback", where=f"callbacks.{name}")
        for name, node in config.callbacks.items()
        if node is not None
    ]


def check_watched(name: str, callback: Callback, family: Family) -> None:
    """Raises `ConfigError` for a callback that watches what validation does not log, or takes its worst.

    Lightning's `EarlyStopping` is one, and its `mode` is min unless it is given.
    """
    metric, mode = getattr(callback, "monitor", None), getattr(callback, "mode", None)
    if mode not in get_args(Direction) or not str(metric).startswith("val/"):
        return
    logged = [f"val/{each}" for each in (*family.scorer.metrics, *([LOSS] if family.validation_loss else []))]
    if metric not in logged:
        raise ConfigError(
            f"callbacks.{name}.monitor={metric} is not what validation logs: set one of {', '.join(logged)}, "
            "or log one more with monitor.metric"
        )
    if mode != (right := direction_of(metric)):
        raise ConfigError(
            f"callbacks.{name}: mode={mode} takes the worst {metric} for the best: set "
            f"+callbacks.{name}.mode={right}"
        )


def build_trainer(
    config: DictConfig, family: Family, callbacks: list[Callback], loggers: list[Logger]
) -> Trainer:
    """Builds Lightning's Trainer.

    A GAN's `max_steps` counts batches in our configuration, but optimiser steps in Lightning. Raises
    `ConfigError` for a missing GPU on the machine where the run starts, perhaps not the one where it was
    configured.
    """
    options = trainer_options(config)
    options.pop("sync_batchnorm", None)  # it is an option of the family
    if options["accelerator"] in _GPUS and not torch.accelerator.is_available():
        raise ConfigError(no_gpu(config))
    if options.get("max_steps", -1) > 0:
        options["max_steps"] *= family.optimizer_steps_per_batch
    check_strategy(options.get("strategy"))
    if options.get("strategy") == "ddp" and family.leaves_parameters_unused:
        options["strategy"] = "ddp_find_unused_parameters_true"
    if options.get("profiler") is None:
        options["profiler"] = Unprofiled()
    exact = [ExactProducts()] if any(part.exact for part in family.objectives.values()) else []
    trainer = Trainer(
        **options,
        callbacks=callbacks + exact,
        logger=loggers,
        default_root_dir=config.run_dir,
        use_distributed_sampler=False,
    )
    check_launch(trainer)
    return trainer
