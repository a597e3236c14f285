"""A data module of ready batches, so that families are tested without photos."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch.utils.data import DataLoader, Dataset

from restora.families.base import Family
from restora.types import Batch


class _Photos(Dataset):
    def __init__(self, size: int, count: int, scale: int) -> None:
        self.size, self.count, self.scale = size, count, scale

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict:
        generator = torch.Generator().manual_seed(index)
        clean = torch.rand(2, 3, self.size, self.size, generator=generator)
        small = clean[..., :: self.scale, :: self.scale]
        degraded = small + 0.1 * torch.randn(small.shape, generator=generator)
        mask = (torch.rand(2, 1, *small.shape[-2:], generator=generator) > 0.3).float()
        return {
            "clean": clean,
            "degraded": degraded,
            "condition": mask,
            "names": [f"{index}a.png", f"{index}b.png"],
        }


class ReadyBatches(LightningDataModule):
    def __init__(self, *, size: int = 24, count: int = 4, scale: int = 1) -> None:
        super().__init__()
        self.photos = _Photos(size, count, scale)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.photos, batch_size=None)

    val_dataloader = test_dataloader = train_dataloader

    def on_after_batch_transfer(self, batch: dict, dataloader_idx: int) -> Batch:
        return Batch(**batch)


def fit_on_ready_batches(
    family: Family, folder: Path, *, steps: int = 3, scale: int = 1, **options: Any
) -> Trainer:
    """Trains for a few steps on a CPU; `options` are the trainer's and win over what stands here."""
    quiet = {
        "accelerator": "cpu",
        "max_steps": steps * family.optimizer_steps_per_batch,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "default_root_dir": folder,
    }
    trainer = Trainer(**(quiet | options))
    trainer.fit(family, ReadyBatches(scale=scale))
    return trainer
