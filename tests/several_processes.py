"""Trains recipes for three steps on one process and on several, all of them in one start.

`main(FOLDER, CASES, WORLDS)` with CASES {name: overrides} leaves, for each number of processes in WORLDS,
FOLDER/of_N.pt: {name: weights, train/loss of each step, scores of each validation photo}. Cases in DOUBLE are
trained in float64.
"""

import os
import socket
import traceback
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Checkpoint
from omegaconf import DictConfig, OmegaConf
from torch import nn

from restora.config import compose
from restora.families.base import Family
from restora.networks.base import Network
from restora.networks.discriminators import Discriminator
from restora.training.build import build_parts, build_trainer
from restora.training.callbacks import StepSeed
from restora.training.run import quieten

SGD = {"_target_": "sgd", "_partial_": True, "lr": 0.005, "momentum": 0.9}
"""Adam makes steps of full size out of gradients that are rounding alone."""


class Losses(Checkpoint):
    """Of each step; a Checkpoint, so that Lightning writes none of its own."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.seen.append(float(trainer.callback_metrics["train/loss"]))


def composed(words: list[str]) -> DictConfig:
    config = compose("train", words)
    OmegaConf.set_struct(config, False)
    config.run_dir = "."
    config.trainer.enable_progress_bar = False
    for node in (config.family, *config.objective.values()):
        if isinstance(node.get("optimizer"), DictConfig):
            node.optimizer = SGD
    return config


def trained(config: DictConfig, *, double: bool) -> dict[str, Any]:
    torch.manual_seed(1)
    quieten(config)
    parts, losses = build_parts(config), Losses()
    if double:
        use_float64(parts.family)
    trainer = build_trainer(config, parts.family, [StepSeed(seed=1), losses], [])
    trainer.fit(parts.family, parts.data)
    return {
        "weights": {name: value.clone() for name, value in parts.family.state_dict().items()},
        "losses": losses.seen,
        "scores": [{k: v for k, v in row.items() if k != "seconds"} for row in parts.family.scores],
    }


def use_float64(family: Family) -> None:
    """Computes in float64 from the photos on, also where the code asks for float32, which this process then
    has not."""
    setattr(torch.Tensor, "float", torch.Tensor.double)  # noqa: B010 -- mypy knows what it is
    family.double()
    for module in family.modules():
        if isinstance(module, Network | Discriminator):
            module.register_forward_pre_hook(_in_float64)


def _in_float64(_: nn.Module, tensors: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(None if tensor is None else tensor.double() for tensor in tensors)


def rank(
    folder: Path, configs: dict[str, DictConfig], double: set[str], number: int, world: int, port: int
) -> None:
    os.environ |= {"LOCAL_RANK": str(number), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for config in configs.values():
        config.trainer.update(devices=world, strategy="ddp" if world > 1 else "auto")
    ordered = sorted(configs, key=lambda name: name in double)  # there is no way back
    found = {name: trained(configs[name], double=name in double) for name in ordered}
    if number == 0:
        torch.save(found, folder / f"of_{world}.pt")


def main(folder: Path, cases: dict[str, list[str]], worlds: dict[int, list[str]], double: set[str]) -> int:
    """`worlds` names the cases of each number of processes."""
    configs = {name: composed(words) for name, words in cases.items()}
    children = []
    for world, names in worlds.items():
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        for number in range(world):
            if (pid := os.fork()) == 0:
                try:
                    rank(folder, {name: configs[name] for name in names}, double, number, world, port)
                except BaseException:
                    traceback.print_exc()
                    os._exit(1)
                os._exit(0)
            children.append(pid)
    return max(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children)
