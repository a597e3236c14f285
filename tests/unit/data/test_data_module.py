"""What the data module makes of photos, and what it refuses."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from data_toys import fitted, photo_data
from PIL import Image

from restora.data.packing import PhotoFile
from restora.data.sources import Folder, PairedFolder, SamplePhotos, UnpairedFolder
from restora.data.unpaired import UnpairedData
from restora.degradations.base import Degradation
from restora.degradations.identity import Identity
from restora.degradations.noise.gaussian_noise import GaussianNoise
from restora.degradations.sampling.downsample import Downsample
from restora.photos.errors import DataError

MakePhotos = Callable[..., list[PhotoFile]]


def test_a_batch_on_the_device(folder: Path, tmp_path: Path) -> None:
    data = photo_data(Folder(root=folder), tmp_path / "packed")
    data.prepare_data()
    data.setup("fit")
    batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    assert batch.clean.shape == batch.degraded.shape == (4, 3, 16, 16)
    assert batch.clean.dtype == batch.degraded.dtype == torch.float32
    assert batch.clean.is_contiguous()
    assert 0 <= batch.clean.min() < 0.1
    assert 0.9 < batch.clean.max() <= 1
    assert torch.equal((batch.clean * 255).round(), batch.clean * 255), "eight bits did not come through"
    assert batch.condition is not None
    assert batch.condition.shape == (4, 1, 16, 16)
    assert len(batch.names) == 4


def test_super_resolution_cuts_to_the_scale(tmp_path: Path) -> None:
    data = photo_data(
        SamplePhotos(),
        tmp_path,
        degradation=Downsample(scale=4, kernel="bicubic"),
        patch_size=32,
        val_crop=99,
    )
    data.prepare_data()
    data.setup("fit")
    batch = data.on_after_batch_transfer(next(iter(data.val_dataloader())), 0)
    assert batch.clean.shape == (1, 3, 96, 96)
    assert batch.degraded.shape == (1, 3, 24, 24)
    batch = data.on_after_batch_transfer(next(iter(data.test_dataloader())), 0)
    assert batch.clean.shape == (1, 3, 300, 448), "test photos are whole"


def test_pairs_are_not_degraded_again(tmp_path: Path, make_photos: MakePhotos) -> None:
    for split in ("train", "val"):
        make_photos(2, side=80, folder=f"set/{split}/clean")
        (tmp_path / "set" / split / "degraded").mkdir()
        for path in (tmp_path / "set" / split / "clean").iterdir():
            with Image.open(path) as image:
                image.resize((image.width // 2, image.height // 2)).save(
                    path.parents[1] / "degraded" / path.name
                )
    source = PairedFolder(root=tmp_path / "set")
    data = photo_data(source, tmp_path / "packed", degradation=Identity())
    assert (data.scale, data.condition_channels, data.has_test) == (2, 0, False)
    data.prepare_data()
    data.setup("fit")
    batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    assert batch.degraded.shape == (4, 3, 8, 8)
    assert batch.condition is None
    (val, _) = data.val_dataloader()
    batch = data.on_after_batch_transfer(val, 0)
    assert batch.clean.shape[-1] == 2 * batch.degraded.shape[-1]
    with pytest.raises(ValueError, match=r"come with their degraded partners.*set degradation=identity"):
        photo_data(source, tmp_path / "packed")


def test_a_process_without_a_photo_counts_nothing(folder: Path, tmp_path: Path) -> None:
    """One test photo for two processes: the second takes part with a photo that has no name."""
    data = photo_data(Folder(root=folder), tmp_path / "packed")
    data.prepare_data()
    data.setup("test")
    seen = []
    for rank in range(2):
        data.trainer = type("Two", (), {"global_rank": rank, "world_size": 2, "strategy": _Cpu})()
        (batch,) = data.test_dataloader()
        seen.append((batch["names"], tuple(batch["clean"].shape)))
    assert seen == [(["0000"], (1, 3, 48, 48)), ([], (1, 3, 48, 48))]


class _Cpu:
    root_device = torch.device("cpu")


# --- what cannot be -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"degradation": Downsample(scale=4, kernel="bicubic"), "patch_size": 50},
            "multiple of the scale 4: set 48",
        ),
        ({"channels": "lab"}, r"data\.channels is rgb, gray or a number from 1 on, got 'lab'"),
        ({"geometry": "d8"}, r"data\.geometry must be d4, hflip or none"),
        ({"reductions": []}, r"data\.reductions must be different whole numbers from 1 up"),
        ({"reductions": [2, 2]}, r"data\.reductions must be different whole numbers from 1 up"),
        ({"reductions": [0.5]}, r"data\.reductions must be .* got \[0\.5\]"),
        ({"steps_per_epoch": 0}, r"data\.steps_per_epoch must be at least 1, got 0"),
        ({"val_crop": 8}, r"data\.val_crop must be at least 32, got 8"),
        ({"batch_size": 0}, "at least 1"),
    ],
)
def test_options_are_checked_before_anything_is_read(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        photo_data(Folder(root=None), tmp_path, **options)


def test_a_batch_must_be_shared_evenly(folder: Path, tmp_path: Path) -> None:
    data = photo_data(Folder(root=folder), tmp_path / "packed", batch_size=5)
    data.trainer = type("Two", (), {"global_rank": 0, "world_size": 2, "strategy": _Cpu})()
    with pytest.raises(ValueError, match=r"data\.batch_size=5 is shared by 2 processes: set a multiple of 2"):
        data.setup("fit")


def test_missing_data_fail_before_training(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"set data\.source\.root"):
        fitted(tmp_path, photo_data(Folder(root=tmp_path / "nowhere"), tmp_path / "packed"))


def test_small_and_broken_photos_are_named_and_the_rest_trains(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Image.new("RGB", (90, 12)).save(folder / "train" / "small.png")
    (folder / "train" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    Image.new("RGB", (31, 200)).save(folder / "val" / "narrow.png")
    with caplog.at_level(logging.WARNING, "restora"):
        toy = fitted(tmp_path, photo_data(Folder(root=folder), tmp_path / "packed"), limit_val_batches=1.0)
    train, val = caplog.messages
    assert train.startswith("2 files for train are left out:")
    assert f"{folder}/train/small.png: is too small: 90x12, at least 16x16 is needed" in train
    assert f"{folder}/train/broken.jpg: " in train
    assert f"{folder}/val/narrow.png: is too small: 31x200, at least 32x32 is needed" in val
    assert {name for _, names, _ in toy.seen for name in names} == {"0000", "0001", "0002"}
    assert set(toy.scored) == {"0000", "0001", "0002"}


def test_pairs_of_equal_photos_are_warned_of(
    make_photos: MakePhotos, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    photos = make_photos(4, side=64)
    for number, photo in enumerate(photos):
        for half in ("clean", "degraded"):
            folder = tmp_path / "pairs" / ("train" if number < 3 else "val") / half
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(photo.clean, folder / photo.clean.name)
    last = tmp_path / "pairs" / "val" / "degraded" / photos[3].clean.name
    Image.open(last).rotate(180).save(last)
    data = photo_data(
        PairedFolder(root=tmp_path / "pairs"), tmp_path / "packed", degradation=Identity(), patch_size=16
    )
    data.prepare_data()
    (message,) = caplog.messages
    assert message.startswith("3 pairs for train: the degraded photo equals the clean one")


def test_where_no_photo_of_a_split_can_be_read_all_broken_ones_are_named(
    make_photos: MakePhotos, tmp_path: Path
) -> None:
    whole = make_photos(12, side=64)[0].clean.parent
    source = Folder(root=whole)
    for photo in source.photos("val"):
        photo.clean.write_bytes(photo.clean.read_bytes()[:200])
    broken, empty = source.photos("val")[0].clean, source.photos("train")[0].clean
    empty.write_bytes(b"")
    data = photo_data(source, tmp_path / "packed")
    with pytest.raises(DataError, match="no file for val can be used as a photo") as raised:
        data.prepare_data()
    assert f"{broken}: cannot be decoded" in str(raised.value)
    assert f"{empty}: is empty" in str(raised.value)
    for photo in source.photos("val"):
        photo.clean.unlink()
    data.prepare_data()
    assert source.photos("val"), "other photos take the place"


def test_photos_that_are_all_too_small(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"all photos for train are smaller than 64x64: set data\.patch_size to 50"
    ):
        fitted(tmp_path, photo_data(Folder(root=folder), tmp_path / "packed", patch_size=64))


def test_sizes_are_checked_without_a_trainer(folder: Path, tmp_path: Path) -> None:
    """Before a run compares photos, which takes longer."""
    photo_data(Folder(root=folder), tmp_path / "packed", patch_size=16).check_sizes()
    with pytest.raises(DataError, match=r"all photos for train are smaller than 64x64: set data\.patch_size"):
        photo_data(Folder(root=folder), tmp_path / "packed", patch_size=64).check_sizes()


def test_only_clean_photos_are_reduced(folder: Path, tmp_path: Path) -> None:
    noisy = Folder(root=folder, holds="degraded")
    with pytest.raises(ValueError, match=r"data\.reductions=\[1, 2\] would also reduce the defects of"):
        photo_data(noisy, tmp_path / "packed", reductions=[1, 2], degradation=Identity())


def test_unpaired_clean_photos_are_reduced_as_the_degraded_ones(
    make_photos: MakePhotos, tmp_path: Path
) -> None:
    for half in ("clean", "degraded"):
        make_photos(3, folder=f"photos/{half}")
    data = UnpairedData(
        source=UnpairedFolder(root=tmp_path / "photos", holds="clean"),
        store_dir=tmp_path / "packed",
        degradation=GaussianNoise(sigma=5),
        patch_size=16,
        batch_size=2,
        steps_per_epoch=1,
        reductions=[2],
    )
    assert data.clean_data.reductions == data.reductions == (2,)


def test_photos_must_have_room_for_the_smallest_reduction(folder: Path, tmp_path: Path) -> None:
    message = r"all photos for train are smaller than 64x64: set data\.patch_size to 12 or less"
    with pytest.raises(DataError, match=message):
        fitted(
            tmp_path, photo_data(Folder(root=folder), tmp_path / "packed", patch_size=16, reductions=[4, 5])
        )


@pytest.mark.parametrize("degradation", [GaussianNoise(sigma=25), Identity()])
def test_grey(tmp_path: Path, degradation: Degradation) -> None:
    data = photo_data(SamplePhotos(), tmp_path, channels="gray", degradation=degradation)
    data.prepare_data()
    data.setup("fit")
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        assert data.on_after_batch_transfer(next(iter(loader)), 0).degraded.shape[1] == 1
