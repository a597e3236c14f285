"""The same inputs however the work is split over workers and processes, stopped or resumed."""

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from data_toys import STEPS, Toy, fitted, photo_data, trainer
from torch import Tensor

from restora.data.module import PhotoData
from restora.data.sources import Folder
from restora.types import Batch


def test_workers_and_accumulation_change_no_input(folder: Path, tmp_path: Path) -> None:
    plain = fitted(tmp_path, photo_data(Folder(root=folder), tmp_path / "packed"))
    assert len(plain.seen) == 15
    assert len({total for *_, total in plain.seen}) == 15
    workers = fitted(tmp_path, photo_data(Folder(root=folder), tmp_path / "packed", workers=2))
    assert workers.seen == plain.seen
    assert torch.equal(workers.layer.weight, plain.layer.weight)
    accumulated = fitted(
        tmp_path,
        photo_data(Folder(root=folder), tmp_path / "packed"),
        max_steps=9,
        accumulate_grad_batches=2,
    )
    assert accumulated.seen == plain.seen


def test_gradients_of_two_batches_are_those_of_one_of_twice_the_size(folder: Path, tmp_path: Path) -> None:
    ends = []
    for batch_size, accumulated in ((4, 1), (2, 2)):
        data = photo_data(
            Folder(root=folder),
            tmp_path / "packed",
            batch_size=batch_size,
            steps_per_epoch=STEPS * accumulated,
        )
        toy = fitted(tmp_path, data, max_steps=6, accumulate_grad_batches=accumulated)
        assert len(toy.seen) == 6 * accumulated
        ends.append(toy.layer.weight.detach())
    torch.testing.assert_close(ends[1], ends[0], atol=1e-6, rtol=1e-5)


def test_the_length_of_an_epoch_changes_no_input(folder: Path, tmp_path: Path) -> None:
    plain = fitted(tmp_path, photo_data(Folder(root=folder), tmp_path / "packed"))
    other = fitted(tmp_path, photo_data(Folder(root=folder), tmp_path / "packed", steps_per_epoch=100))
    assert inputs(other) == inputs(plain)


def test_validation_does_not_depend_on_the_run(folder: Path, tmp_path: Path) -> None:
    scored = []
    for seed, interval in ((1, 5), (2, 3)):
        toy = fitted(
            tmp_path,
            photo_data(Folder(root=folder), tmp_path / "packed", seed=seed),
            limit_val_batches=1.0,
            val_check_interval=interval,
            check_val_every_n_epoch=None,
        )
        scored.append(toy.scored)
    assert set(scored[0]) == {"0000", "0001", "0002"}
    assert scored[0] == scored[1]


def test_stages_grow_patches_at_their_steps(folder: Path, tmp_path: Path) -> None:
    stages = [
        {"start_step": 0, "patch_size": 8, "batch_size": 6},
        {"start_step": 7, "patch_size": 16, "batch_size": 2},
    ]
    sizes: list[tuple[int, ...]] = []

    class Watched(Toy):
        def training_step(self, batch: Batch, batch_index: int) -> Tensor:
            sizes.append(tuple(batch.clean.shape))
            return super().training_step(batch, batch_index)

    data = photo_data(Folder(root=folder), tmp_path / "packed", stages=stages)
    trainer(tmp_path, max_steps=10).fit(Watched(), data)
    assert sizes == [(6, 3, 8, 8)] * 7 + [(2, 3, 16, 16)] * 3


# --- stopped and resumed --------------------------------------------------------------------------------


def inputs(toy: Toy) -> list[tuple[list[str], float]]:
    """What was trained on; not Lightning's number of the batch, which a resumed epoch end carries on."""
    return [(names, total) for _, names, total in toy.seen]


class SaveEverywhere(pl.Callback):
    """A checkpoint after every batch, after every validation and at the end of every epoch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _save(self, trainer: pl.Trainer, when: str) -> None:
        batches: Any = trainer.fit_loop.epoch_loop.batch_progress.total
        trainer.save_checkpoint(self.folder / f"{batches.processed:02}_{when}.ckpt")

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self._save(trainer, "batch")

    def on_validation_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self._save(trainer, "validation")

    def on_train_epoch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self._save(trainer, "epoch")


@pytest.mark.parametrize(
    ("workers", "options"),
    [
        (0, {"val_check_interval": 3, "check_val_every_n_epoch": None}),
        (0, {"accumulate_grad_batches": 2, "max_steps": 7, "val_check_interval": 1.0}),
        (0, {"limit_train_batches": 3, "val_check_interval": 2}),
        (2, {"val_check_interval": 5, "check_val_every_n_epoch": None}),
    ],
)
@pytest.mark.slow
def test_a_resumed_run_ends_with_the_same_weights(
    folder: Path, tmp_path: Path, workers: int, options: dict[str, Any]
) -> None:
    def data() -> PhotoData:
        return photo_data(Folder(root=folder), tmp_path / "packed", workers=workers)

    options = {"limit_val_batches": 1, "max_steps": 13, **options}
    whole = fitted(tmp_path, data(), callbacks=[SaveEverywhere(tmp_path)], **options)
    saved = sorted(tmp_path.glob("*.ckpt"))
    kinds = {path.stem.partition("_")[2] for path in saved}
    assert kinds == {"batch", "validation", "epoch"}
    # gradients that are still being accumulated are in no checkpoint
    whole_steps = range(0, STEPS + 1, options.get("accumulate_grad_batches", 1))
    saved = [path for path in saved if int(path.name[:2]) % STEPS in whole_steps]
    for checkpoint in saved if workers == 0 else saved[3::6]:
        done = int(checkpoint.name[:2])
        resumed = fitted(tmp_path, data(), ckpt_path=checkpoint, **options)
        assert inputs(resumed) == inputs(whole)[done:], f"other batches after {checkpoint.name}"
        assert torch.equal(resumed.layer.weight, whole.layer.weight), f"other weights after {checkpoint.name}"


def test_going_on_with_other_data_is_said(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def data(**options: Any) -> PhotoData:
        return photo_data(Folder(root=folder), tmp_path / "packed", **options)

    fitted(tmp_path, data(), max_steps=7, callbacks=[SaveEverywhere(tmp_path)])
    checkpoint = tmp_path / "07_batch.ckpt"
    with caplog.at_level(logging.WARNING, "restora"):
        fitted(tmp_path, data(), ckpt_path=checkpoint)
        fitted(tmp_path, data(seed=6), ckpt_path=checkpoint)
    said = [message for message in caplog.messages if "other crops" in message]
    assert said == ["this run continues with other crops: data seed was 5, is 6"]


# --- several processes ----------------------------------------------------------------------------------

TWO_PROCESSES = """
import json, sys
from pathlib import Path
import torch, lightning.pytorch as pl
from data_toys import STEPS, Toy, photo_data, trainer
from restora.data.sources import Folder

class Whole(Toy):
    def on_fit_end(self):
        gathered = [None] * self.trainer.world_size
        torch.distributed.all_gather_object(gathered, [self.seen, self.scored, self.scored_at_once])
        if self.trainer.is_global_zero:
            weights = self.layer.weight.detach().flatten().tolist()
            Path(sys.argv[2], "seen.json").write_text(json.dumps({"ranks": gathered, "weights": weights}))

if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    data = photo_data(Folder(root=folder), out / "packed", batch_size=16, val_crop=32)
    trainer(out, devices=2, strategy="ddp_fork", limit_val_batches=1.0).fit(Whole(), data)
"""


@pytest.mark.slow
def test_two_processes_see_what_one_sees(
    folder: Path, tmp_path: Path, start_python: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    process = start_python(TWO_PROCESSES, folder, tmp_path)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    two = json.loads((tmp_path / "seen.json").read_text())

    def data() -> PhotoData:
        return photo_data(Folder(root=folder), tmp_path / "packed", batch_size=16, val_crop=32)

    one = fitted(tmp_path, data(), limit_val_batches=1.0)
    first, second = two["ranks"]
    for (_, names, total), (_, names_0, total_0), (_, names_1, total_1) in zip(
        one.seen, first[0], second[0], strict=True
    ):
        assert names == names_0 + names_1
        assert total == pytest.approx(total_0 + total_1, rel=1e-12)
    assert set(first[1]) == {"0000", "0002"}
    assert set(second[1]) == {"0001"}
    assert first[1] | second[1] == one.scored
    assert (set(first[2]), set(second[2]), set(one.scored_at_once)) == ({2}, {1}, {3})
    monkeypatch.setattr(PhotoData, "_training_pixels", 0)
    alone = fitted(tmp_path, data(), limit_val_batches=1.0)
    assert set(alone.scored_at_once) == {1}
    assert alone.scored == one.scored
    torch.testing.assert_close(torch.tensor(two["weights"]), one.layer.weight.detach().flatten())
