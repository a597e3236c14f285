"""A toy network under Lightning that remembers what it was given."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from restora.data.module import PhotoData
from restora.data.sources import Source
from restora.degradations.noise.gaussian_noise import GaussianNoise
from restora.types import Batch

STEPS = 5


class Toy(pl.LightningModule):
    """A network of one layer that remembers what it saw."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(3, 3, 3, padding=1)
        self.seen: list[tuple[int, list[str], float]] = []
        self.scored: dict[str, float] = {}
        self.scored_at_once: list[int] = []

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        self.seen.append((batch_index, batch.names, float(batch.degraded.double().sum())))
        return (self.layer(batch.degraded) - batch.clean).square().mean()

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        self.scored_at_once.append(len(batch.names))
        each = batch.degraded.double().square().mean(dim=(1, 2, 3)).tolist()
        self.scored |= dict(zip(batch.names, each, strict=True))

    test_step = validation_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-2)


def photo_data(source: Source, store_dir: Path, **options: Any) -> PhotoData:
    defaults: dict[str, Any] = {
        "degradation": GaussianNoise(sigma=(10, 50)),
        "patch_size": 16,
        "batch_size": 4,
        "steps_per_epoch": STEPS,
        "seed": 5,
    }
    return PhotoData(source=source, store_dir=store_dir, **{**defaults, **options})


def trainer(tmp_path: Path, *, max_steps: int = 3 * STEPS, **options: Any) -> pl.Trainer:
    return pl.Trainer(
        **{
            "accelerator": "cpu",
            "devices": 1,
            "max_steps": max_steps,
            "max_epochs": -1,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "limit_val_batches": 0,
            "use_distributed_sampler": False,
            "default_root_dir": tmp_path,
            **options,
        }
    )


def fitted(tmp_path: Path, data: PhotoData, *, ckpt_path: Path | None = None, **options: Any) -> Toy:
    toy = Toy()
    trainer(tmp_path, **options).fit(toy, data, ckpt_path=ckpt_path, weights_only=False)
    return toy
