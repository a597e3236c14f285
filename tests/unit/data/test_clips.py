"""Clips: photos that move by a known motion, and windows of frames of real videos."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_toys import photo_data, trainer
from PIL import Image

from restora.data.clip_folder import ClipFolder
from restora.data.motion import CameraMotion
from restora.data.sources import Folder, PairedFolder
from restora.degradations.frames import degrade_frames, frame_keys
from restora.degradations.identity import Identity
from restora.degradations.noise.gaussian_noise import GaussianNoise
from restora.keyed import KeyedGenerator, image_key
from restora.photos.errors import DataError
from restora.photos.windows import mirrored
from restora.types import Batch

FRAMES = 5
KEYS = torch.tensor([3, 99, -7])


def wave(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """A smooth photo at any place, in [0,1]."""
    return 0.5 + 0.2 * torch.sin(0.31 * x + 0.12 * y) + 0.2 * torch.cos(0.23 * y - 0.17 * x + 1)


def still(batch: int, height: int, width: int) -> torch.Tensor:
    y = (torch.arange(height) - (height - 1) / 2)[:, None].expand(height, width)
    x = (torch.arange(width) - (width - 1) / 2)[None].expand(height, width)
    return wave(x, y).expand(batch, 1, height, width)


@pytest.mark.parametrize("size", [(40, 56), (33, 21)])
def test_every_frame_shows_the_photo_where_the_motion_says(size: tuple[int, int]) -> None:
    """Against the same photo computed at the moved places, to less than a level of the 8-bit scale."""
    motion = CameraMotion(pan=3, shake=0.7, turn=2, zoom=0.02)
    margin = motion.margin(FRAMES, max(size))
    params = motion.sample(FRAMES, KeyedGenerator(KEYS))
    clips = motion.frames(still(3, *(side + 2 * margin for side in size)), params, margin=margin)
    assert clips.shape == (3, FRAMES, 1, *size)
    for frame in range(FRAMES):
        moved = wave(*motion.places(params, frame, *size))
        torch.testing.assert_close(clips[:, frame, 0], moved, atol=3e-3, rtol=0)
    assert (clips[:, 0] - clips[:, 2]).abs().mean() > 0.01, "nothing moved"


def test_the_middle_frame_is_the_photo_itself() -> None:
    photos = torch.rand(3, 3, 24, 20)
    motion = CameraMotion()
    clips = motion.frames(photos, motion.sample(FRAMES, KeyedGenerator(KEYS)), margin=2)
    assert torch.equal(clips[:, 2], photos[..., 2:-2, 2:-2])
    assert float(clips.min()) >= 0
    assert float(clips.max()) <= 1


def test_the_margin_holds_what_the_frames_show() -> None:
    motion = CameraMotion(pan=5, shake=1, turn=3, zoom=0.05)
    side = 24
    params = motion.sample(FRAMES, KeyedGenerator(torch.arange(200)))
    reach = max(
        float(torch.stack(motion.places(params, frame, side, side)).abs().max()) for frame in range(FRAMES)
    )
    assert side / 2 < reach <= (side - 1) / 2 + motion.margin(FRAMES, side) - 1


def test_a_motion_is_a_function_of_the_key_alone() -> None:
    motion = CameraMotion()
    together = motion.sample(FRAMES, KeyedGenerator(KEYS))
    alone = motion.sample(FRAMES, KeyedGenerator(KEYS[1:2]))
    for name, values in together.items():
        assert torch.equal(values[1:2], alone[name])
        assert not torch.equal(values[0], values[1])


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"pan": -1}, "data.motion.pan must be a number from 0 to 64"),
        ({"zoom": 0.5}, "data.motion.zoom must be"),
        ({"speed": 2}, "data.motion.speed does not exist: use pan, shake, turn, zoom"),
    ],
)
def test_a_motion_of_other_values_is_refused(values: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        CameraMotion.of(values)


def test_a_clip_has_one_level_and_each_frame_noise_of_its_own() -> None:
    noise = GaussianNoise(sigma=(5, 50))
    clips = torch.full((3, FRAMES, 1, 64, 64), 0.5)
    image, condition = degrade_frames(noise, clips, frame_keys(KEYS, FRAMES))
    assert image.shape == (3, FRAMES, 64, 64)
    assert condition is not None
    assert condition.shape == (3, 1, 64, 64)
    drawn = image - 0.5
    level = condition[:, 0, 0, 0]
    torch.testing.assert_close(drawn.std(dim=(2, 3)), level[:, None].expand(3, FRAMES), rtol=0.05, atol=0)
    for first in range(FRAMES):
        for second in range(first):
            shared = (drawn[:, first] * drawn[:, second]).mean(dim=(1, 2)) / level**2
            assert shared.abs().max() < 0.06
    alone = noise(clips[:, 2], KeyedGenerator(KEYS))
    assert torch.equal(image[:, 2:3], alone.image), "the middle frame is not that of a single photo"
    assert torch.equal(condition, alone.condition)


def moving(folder: Path, store: Path, **options: Any) -> Any:
    return photo_data(Folder(root=folder), store, **({"frames": FRAMES} | options))


def test_batches_of_moving_photos(folder: Path, tmp_path: Path) -> None:
    data = moving(folder, tmp_path / "packed", motion={"pan": 1, "shake": 0, "turn": 0, "zoom": 0})
    data.prepare_data()
    data.setup("fit")
    raw = next(iter(data.train_dataloader()))
    assert raw["clean"].shape == (4, 3, 16 + 2 * data.margin, 16 + 2 * data.margin)
    batch = data.on_after_batch_transfer(raw, 0)
    assert batch.clean.shape == batch.middle.shape == (4, 3, 16, 16)
    assert batch.degraded.shape == (4, 15, 16, 16)
    assert batch.condition.shape == (4, 1, 16, 16)
    assert torch.equal((batch.clean * 255).round(), batch.clean * 255)
    again = batch.redegrade(batch.keys)
    assert torch.equal(again, batch.degraded)
    assert not torch.equal(batch.redegrade(batch.keys + 1), again)
    assert [one.frames for one in batch.photos()] == [FRAMES] * 4


def test_held_out_photos_move_in_the_same_way_and_have_the_noise_of_single_ones(
    folder: Path, tmp_path: Path
) -> None:
    found: list[Batch] = []
    for options in ({}, {}, {"frames": 1}, {"batch_size": 2, "seed": 9}):
        data = moving(folder, tmp_path / "packed", **options)
        data.setup("fit")
        found.append(data.on_after_batch_transfer(data.val_dataloader().dataset[0], 0))
    clip, again, single, other = found
    assert torch.equal(clip.degraded, again.degraded)
    assert torch.equal(clip.degraded, other.degraded)
    assert torch.equal(clip.middle, single.degraded)
    assert torch.equal(clip.clean, single.clean)


def test_a_resumed_run_gets_the_same_clips(folder: Path, tmp_path: Path) -> None:
    data = moving(folder, tmp_path / "packed")
    data.setup("fit")
    batches = data.training_batches()
    whole = [data.degraded(batches[number]).degraded for number in range(4)]
    later = moving(folder, tmp_path / "packed")
    later.setup("fit")
    assert torch.equal(later.degraded(later.training_batches()[3]).degraded, whole[3])
    assert batches.described()["margin"] == data.margin > 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"frames": 4}, "data.frames must be an odd number"),
        (
            {"frames": 1, "motion": {"pan": 2}},
            "data.motion moves photos to make clips, and there is one frame",
        ),
        ({"motion": {"pan": "fast"}}, "data.motion.pan must be a number"),
    ],
)
def test_settings_without_sense_are_refused(
    options: dict[str, Any], said: str, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=said):
        moving(folder, tmp_path / "packed", **options)


def test_photos_that_come_degraded_do_not_move(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"come degraded: set data\.frames=1"):
        photo_data(PairedFolder(root=folder), tmp_path, degradation=Identity(), frames=5)


def test_photos_too_small_to_move_are_named_with_the_margin(folder: Path, tmp_path: Path) -> None:
    data = moving(folder, tmp_path / "packed", patch_size=32)
    with pytest.raises(DataError, match=r"includes \d+ on each side .* set data\.patch_size to \d+ or less"):
        data.check_sizes()
    with pytest.raises(DataError, match=r"lower data\.motion\.pan$"):
        moving(folder, tmp_path / "packed", motion={"pan": 40}).check_sizes()


# --- real videos --------------------------------------------------------------------------------------------


def frame(video: int, number: int) -> Any:
    return np.full((40, 44, 3), 20 * video + number, np.uint8)


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Five videos of eleven frames, each of one brightness: 20 times the video plus the frame."""
    for video in range(5):
        folder = tmp_path / "videos" / f"v{video}"
        folder.mkdir(parents=True)
        for number in range(11):
            Image.fromarray(frame(video, number)).save(folder / f"f{number}.png")
    return tmp_path / "videos"


@pytest.mark.parametrize(
    ("index", "count", "at"),
    [(-2, 9, 2), (-1, 9, 1), (0, 9, 0), (8, 9, 8), (9, 9, 7), (10, 9, 6), (-2, 2, 0), (3, 2, 1), (-2, 1, 0)],
)
def test_a_video_is_mirrored_at_its_ends(index: int, count: int, at: int) -> None:
    assert mirrored(index, count) == at


def test_frames_come_in_the_order_of_their_numbers_and_a_video_in_one_split(videos: Path) -> None:
    source = ClipFolder(root=videos, val_fraction=0.3, test_fraction=0.3)
    splits = {split: source.photos(split) for split in ("train", "val", "test")}
    assert all(splits.values())
    assert sum(map(len, splits.values())) == 55
    folders = [{photo.clean.parent for photo in photos} for photos in splits.values()]
    assert sum(map(len, folders)) == 5
    first = [photo.clean.name for photo in splits["train"]][:11]
    assert first == [f"f{number}.png" for number in range(11)]


def values(batch: Any) -> list[list[int]]:
    """(B,T,C,h,w) -> the brightness of each frame."""
    assert (batch["clean"] == batch["clean"][..., :1, :1, :1]).all()
    return batch["clean"][..., 0, 0, 0].tolist()


def test_windows_of_real_videos(videos: Path, tmp_path: Path) -> None:
    data = photo_data(ClipFolder(root=videos), tmp_path / "packed", frames=FRAMES)
    data.prepare_data()
    data.setup("fit")
    raw = next(iter(data.train_dataloader()))
    assert raw["clean"].shape == (4, FRAMES, 3, 16, 16)
    for name, window in zip(raw["names"], values(raw), strict=True):
        video, number = int(name[1]), int(name.rpartition("f")[2])
        assert window == [20 * video + mirrored(number + t, 11) for t in (-2, -1, 0, 1, 2)]
    batch = data.on_after_batch_transfer(raw, 0)
    assert batch.degraded.shape == (4, 15, 16, 16)
    assert torch.equal(batch.clean, raw["clean"][:, 2].float() / 255)
    assert torch.equal(batch.redegrade(batch.keys), batch.degraded)


def test_a_held_out_frame_has_the_same_noise_in_every_window(videos: Path, tmp_path: Path) -> None:
    """As in a noisy video, which is what is restored in the end."""
    noise = GaussianNoise(sigma=25)
    data = photo_data(ClipFolder(root=videos), tmp_path / "packed", frames=FRAMES, degradation=noise)
    data.setup("fit")
    dataset: Any = data.val_dataloader().dataset
    batches = [data.on_after_batch_transfer(dataset[number], 0) for number in range(len(dataset))]
    clips = torch.cat([batch.degraded for batch in batches]).unflatten(1, (FRAMES, 3))
    names = [name for batch in batches for name in batch.names]
    fifth, sixth = (names.index(name) for name in names if name.endswith(("f5", "f6")))
    assert torch.equal(clips[fifth, 1:], clips[sixth, :-1])
    single = noise(batches[0].clean[:1], KeyedGenerator(torch.tensor([image_key(names[0])]))).image
    assert torch.equal(clips[0, 2], single[0])


def test_single_frames_of_videos_are_photos(videos: Path, tmp_path: Path) -> None:
    data = photo_data(ClipFolder(root=videos), tmp_path / "packed")
    data.setup("fit")
    assert next(iter(data.train_dataloader()))["clean"].shape == (4, 3, 16, 16)


def test_what_is_no_folder_of_videos_is_refused(videos: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a folder of frames for each"):
        ClipFolder(root=None).check()
    with pytest.raises(DataError, match="holds frames: put those of each video into a folder of its own"):
        ClipFolder(root=videos / "v0").check()
    (tmp_path / "one").mkdir()
    (videos / "v0").rename(tmp_path / "one" / "v0")
    with pytest.raises(DataError, match="at least 3 folders of frames are needed"):
        ClipFolder(root=tmp_path / "one").check()
    with pytest.raises(ValueError, match=r"are real ones: set data\.motion=null"):
        photo_data(ClipFolder(root=videos), tmp_path, frames=FRAMES, motion={"pan": 1})
    for folder in videos.iterdir():
        Image.fromarray(frame(0, 0)[:36]).save(folder / "f11.png")
    data = photo_data(ClipFolder(root=videos), tmp_path / "packed", frames=FRAMES)
    data.setup("fit")
    with pytest.raises(DataError, match=r"differ in size \(44x36 and 44x40\)"):
        data.train_dataloader()


def test_a_network_of_frames_learns_from_them(
    folder: Path, tmp_path: Path, make_photos: Callable[..., Any]
) -> None:
    from restora.config import ConfigError
    from restora.families.base import Family
    from restora.networks.dncnn import DnCNN
    from restora.networks.fastdvdnet import FastDVDnet
    from restora.training.build import check_together
    from restora.training.schedules import Constant

    network = FastDVDnet(channels=(4, 4, 4), frame_features=2)
    data = moving(folder, tmp_path / "packed", test_crop=32, motion={"pan": 1})
    check_together(network, data)
    with pytest.raises(
        ConfigError, match=r"takes 1 frame\(s\) of a video, the data give 5: set data\.frames=1"
    ):
        check_together(DnCNN(in_channels=15), data)
    with pytest.raises(ConfigError, match=r"set network\.in_channels=15, or data\.channels=gray"):
        check_together(FastDVDnet(in_channels=5), data)
    family = Family(
        network=network,
        loss=torch.nn.MSELoss(),
        optimizer=partial(torch.optim.SGD, lr=0.01),
        schedule=Constant(),
    )
    made = trainer(tmp_path, max_steps=2, limit_val_batches=1)
    made.fit(family, data)
    figures = made.test(family, data, verbose=False)[0]
    assert 5 < figures["test/input_psnr"] < 40
