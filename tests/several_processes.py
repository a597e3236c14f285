"""Trains recipes for three steps on one process and on several, all of them in one start.

`main(FOLDER, CASES, WORLDS)` with CASES {name: overrides} leaves, for each number of processes in WORLDS,
FOLDER/of_N.pt: {name: weights, train/loss of each step, scores of each validation photo}.
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

from restora.config import compose
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


def trained(config: DictConfig) -> dict[str, Any]:
    torch.manual_seed(1)
    quieten(config)
    parts, losses = build_parts(config), Losses()
    trainer = build_trainer(config, parts.family, [StepSeed(seed=1), losses], [])
    trainer.fit(parts.family, parts.data)
    return {
        "weights": {name: value.clone() for name, value in parts.family.state_dict().items()},
        "losses": losses.seen,
        "scores": [{k: v for k, v in row.items() if k != "seconds"} for row in parts.family.scores],
    }


def rank(folder: Path, configs: dict[str, DictConfig], number: int, world: int, port: int) -> None:
    os.environ |= {"LOCAL_RANK": str(number), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for config in configs.values():
        config.trainer.update(devices=world, strategy="ddp" if world > 1 else "auto")
    found = {name: trained(config) for name, config in configs.items()}
    if number == 0:
        torch.save(found, folder / f"of_{world}.pt")


def main(folder: Path, cases: dict[str, list[str]], worlds: dict[int, list[str]]) -> int:
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
                    rank(folder, {name: configs[name] for name in names}, number, world, port)
                except BaseException:
                    traceback.print_exc()
                    os._exit(1)
                os._exit(0)
            children.append(pid)
    return max(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children)
