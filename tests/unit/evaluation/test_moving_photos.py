"""Networks of several frames beside those of one: the same noisy photos, in motion for the former."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from restora.apps.evaluate_plan import Entry, _check_effect
from restora.data.motion import CameraMotion
from restora.evaluation.benchmarks.base import Intake
from restora.evaluation.benchmarks.denoise import Denoise
from restora.evaluation.benchmarks.held_out import HeldOut
from restora.evaluation.benchmarks.jpeg import Jpeg
from restora.evaluation.benchmarks.super_resolution import SuperResolution
from restora.evaluation.methods import ClassicalMethod, NetworkMethod
from restora.evaluation.run import evaluate
from restora.keyed import KeyedGenerator, image_key
from restora.networks.dncnn import DnCNN
from restora.networks.fastdvdnet import FastDVDnet

VIDEO = Intake(channels=3, scale=1, frames=5)


def frames_of(folder: Path, **options: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The frames (5,3,H,W) of a photo, the same photo for other methods, and the clean one."""
    benchmark = Denoise(root=str(folder), color="rgb", **options)
    moving, single = benchmark.observe(1, VIDEO), benchmark.observe(1, Intake(channels=3))
    assert torch.equal(moving.clean, single.clean)
    assert torch.equal(moving.baseline, single.baseline)
    assert torch.equal(moving.condition, single.condition)
    return moving.degraded.unflatten(1, (5, 3))[0], single.degraded[0], single.clean


def test_the_middle_frame_is_the_photo_that_others_get(photo_folder: Path) -> None:
    frames, single, clean = frames_of(photo_folder, sigma=25)
    assert torch.equal(frames[2], single)
    motion = CameraMotion()
    key = KeyedGenerator(torch.tensor([image_key("b")])).fork("motion")
    noise = frames - motion.frames(clean, motion.sample(5, key))[0]
    assert noise.std(dim=(1, 2, 3)).numpy() * 255 == pytest.approx([25] * 5, rel=0.05)
    shared = np.corrcoef(noise.flatten(1).numpy()) - np.eye(5)
    assert np.abs(shared).max() < 0.05, "frames share noise"


def test_without_motion_only_the_noise_differs(photo_folder: Path) -> None:
    still = {"pan": 0.0, "shake": 0.0, "turn": 0.0, "zoom": 0.0}
    frames, single, clean = frames_of(photo_folder, sigma=50, motion=still, clip_input=True, round_input=True)
    assert torch.equal(frames[2], single)
    assert (frames[0] - frames[1]).abs().mean() > 0.1
    torch.testing.assert_close(frames, (frames * 255).round() / 255)
    assert (frames.mean(0) - clean[0]).abs().mean() < 0.6 * (single - clean[0]).abs().mean()


def test_the_motion_is_part_of_the_results_where_it_is_chosen(photo_folder: Path) -> None:
    usual = Denoise(root=str(photo_folder), color="rgb", sigma=25)
    assert "motion" not in usual.describe()
    fast = Denoise(root=str(photo_folder), color="rgb", sigma=25, motion={"pan": 9.0})
    assert fast.describe()["motion"] == {"pan": 9.0}
    with pytest.raises(ValueError, match=r"benchmark\.motion\.pan must be a number from 0 to 64, got -1"):
        Denoise(root=str(photo_folder), color="rgb", sigma=25, motion={"pan": -1})


def test_other_benchmarks_refuse_networks_of_several_frames(photo_folder: Path) -> None:
    root = str(photo_folder)
    for benchmark in (
        Jpeg(root=root, color="rgb", quality=20),
        SuperResolution(root=root, color="rgb", scale=2),
    ):
        with pytest.raises(ValueError, match=r"takes 5 frames of a video.*set benchmark=denoise"):
            benchmark.planes(VIDEO)


def test_networks_of_five_frames_and_of_one_are_scored_on_the_same_photos(photo_folder: Path) -> None:
    benchmark = Denoise(root=str(photo_folder), color="rgb", sigma=25, limit=2)
    small = FastDVDnet(channels=(4, 4, 4), frame_features=2)
    for block in (small.temp1, small.temp2):
        torch.nn.init.zeros_(block.outc.convblock[3].weight)  # gives the middle frame as it is
    rows = [
        evaluate(NetworkMethod(name="n", network=network.eval()), benchmark).rows
        for network in (small, DnCNN(in_channels=3, depth=3, channels=4))
    ]
    assert [row["name"] for row in rows[0]] == [row["name"] for row in rows[1]]
    for video, single in zip(*rows, strict=True):
        assert video["psnr"] == video["input_psnr"] == single["input_psnr"]


def test_a_motion_without_effect_is_refused(photo_folder: Path) -> None:
    moved = Denoise(root=str(photo_folder), color="rgb", sigma=25, motion={"pan": 1})
    single = NetworkMethod(name="n", network=DnCNN(in_channels=3, depth=3, channels=4))
    with pytest.raises(ValueError, match=r"benchmark\.motion is for networks that take several frames"):
        _check_effect([Entry(single, {})], moved)
    _check_effect([Entry(NetworkMethod(name="n", network=FastDVDnet()), {})], moved)


def test_held_out_clips_are_photos_for_methods_of_one_frame(photo_folder: Path, tmp_path: Path) -> None:
    def held_out(frames: int) -> HeldOut:
        node = {
            "_target_": "photos",
            "source": {"_target_": "folder", "root": str(photo_folder)},
            "store_dir": str(tmp_path / "packed"),
            "patch_size": 16,
            "batch_size": 2,
            "steps_per_epoch": 1,
            "test_crop": 40,
            "frames": frames,
        }
        noise = {"_target_": "gaussian_noise", "sigma": 25}
        return HeldOut(root="x", color="rgb", configuration={"data": node, "degradation": noise})

    clips, photos = held_out(5), held_out(1)
    assert clips.observe(0, VIDEO).degraded.shape == (1, 15, 40, 40)
    for intake in (Intake(), Intake(channels=3)):
        one, other = clips.observe(0, intake), photos.observe(0, intake)
        assert torch.equal(one.degraded, other.degraded)
        assert torch.equal(one.baseline, other.baseline)
    assert clips.describe()["data"]["frames"] == 5
    assert "frames" not in photos.describe()["data"]
    with pytest.raises(ValueError, match="takes 5 frames of a video, the run's data give 1"):
        photos.observe(0, VIDEO)
    restored = ClassicalMethod(name="bilateral", task="denoise")
    assert restored.intake.frames == 1
