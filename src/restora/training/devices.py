"""Checks of the devices of a run and of how its processes are started.

They are made before the first job starts or is queued.
"""

import os
from collections.abc import Callable
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.environments import LightningEnvironment  # type: ignore[attr-defined]
from lightning.pytorch.strategies import StrategyRegistry

from restora.config import ConfigError

STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false")
_SHARDS = ("fsdp", "deepspeed", "modelparallel")
"""Parts of the names of sharding strategies and of their classes, registered in Lightning or not."""
_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
"""Environment variables that hold a process's rank before there is a trainer."""
_AGREED = "restora/run_dir"
_TORCHRUN = (
    "start it on each machine by torchrun --nnodes {nodes} --nproc-per-node DEVICES --rdzv-backend c10d "
    "--rdzv-endpoint HOST:29400 -m restora train …, or by srun with one task per device"
)


def own_rank() -> int:
    """This process's global rank, also before there is a trainer (as far as Lightning knows it)."""
    return int(rank_zero_only.rank)  # type: ignore[attr-defined]


def check_strategy(strategy: Any) -> None:
    """Raises `ConfigError` for distributed strategies that a run does not support."""
    if any(name in str(strategy).lower().replace("_", "") for name in _SHARDS):
        raise ConfigError(
            f"trainer.strategy={strategy} splits the weights over the devices, and the averaged weights, the "
            "checkpoints and the exported model hold them whole: set trainer.strategy=ddp, and "
            "activation_checkpointing=true where memory is short"
        )
    if strategy not in StrategyRegistry.available_strategies() or strategy in STRATEGIES:
        return  # the trainer refuses unknown strategies
    raise ConfigError(
        f"trainer.strategy={strategy}: what its processes record stays with them; set trainer.strategy=ddp "
        f"(there are {', '.join(STRATEGIES)})"
    )


def check_launch(trainer: Trainer) -> None:
    """Raises `ConfigError` if the processes of several machines cannot find each other."""
    environment = getattr(trainer.strategy, "cluster_environment", None)
    if isinstance(environment, LightningEnvironment):
        if trainer.num_nodes > 1 or environment.node_rank() > 0:
            where = f"trainer.num_nodes={trainer.num_nodes}"
            if environment.node_rank() > 0:
                where += f" with NODE_RANK={environment.node_rank()}"
            raise ConfigError(f"{where}: {_TORCHRUN.format(nodes=max(trainer.num_nodes, 2))}")
    elif trainer.global_rank != 0 and not any(name in os.environ for name in _RANKS):
        raise ConfigError(
            f"process {trainer.global_rank} has none of {', '.join(_RANKS)} in its environment, so it would "
            f"write what the first one writes: {_TORCHRUN.format(nodes=trainer.num_nodes)}"
        )


def check_tasks(config: Any, launcher: Any) -> None:
    """Raises `ConfigError` if a queued job would get another number of processes than devices.

    `launcher` holds the settings of Hydra's SLURM launcher, which starts one process per task.
    """
    devices, nodes = config.trainer.devices, int(config.trainer.num_nodes)
    if not isinstance(devices, int) or devices < 1:
        return
    for key, have, wanted in (
        ("tasks_per_node", launcher.get("tasks_per_node"), devices),
        ("nodes", launcher.get("nodes"), nodes),
    ):
        if (1 if have is None else int(have)) != wanted:
            raise ConfigError(
                f"trainer.devices={devices} on trainer.num_nodes={nodes} takes one task per device: set "
                f"hydra.launcher.{key}={wanted} (it is {have})"
            )


def agreed(make: Callable[[], str]) -> str:
    """A string that process 0 makes, shared with all processes that torchrun has started.

    It is shared by the store of torchrun's agents, which also survives a restart.
    """
    import torch

    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = torch.distributed.TCPStore(host, port, is_master=False)  # type: ignore[attr-defined]
    if os.environ["RANK"] == "0" and not store.check([_AGREED]):
        store.set(_AGREED, make())
    return str(store.get(_AGREED).decode())
