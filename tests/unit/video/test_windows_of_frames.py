"""Networks that restore a frame from several, and the strength that is the same for all frames."""

from pathlib import Path

import numpy as np
import pytest
import torch

av = pytest.importorskip("av", reason="pip install 'restora[video]'")

from clips import read_planes, write_clip  # noqa: E402

from restora.artifact.restorer import Restorer  # noqa: E402
from restora.networks.base import Network  # noqa: E402
from restora.video.restoring import estimated_sigma, restore_video, restore_windows  # noqa: E402


class Third(Network):
    """Of three frames, the one after the centre."""

    frames = 3

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.in_channels, self.out_channels = 3 * channels, channels

    def restore(self, x: torch.Tensor, condition: torch.Tensor | None) -> torch.Tensor:
        return x[:, -self.out_channels :]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("pixels", ["yuv420p", "gray"])
@pytest.mark.parametrize("turns", [False, True])
def test_a_network_of_three_frames_gets_the_neighbours(
    channels: int, pixels: str, turns: bool, tmp_path: Path
):
    clip = write_clip(tmp_path / "clip.mkv", pixels=pixels)
    restorer = Restorer(network=Third(channels), device="cpu")
    restore_video(clip, tmp_path / "out.mkv", restorer, quality=100, self_ensemble=turns)
    given, made = read_planes(clip), read_planes(tmp_path / "out.mkv")
    expected = [*given[1:], given[-2]]  # mirrored at the end
    for before, after in zip(expected, made, strict=True):
        for plane, same in zip(before, after, strict=True):
            assert np.abs(plane.astype(int) - same).max() <= (1 if turns else 0)


def test_frames_that_are_computed_together_are_those_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    clip = write_clip(tmp_path / "clip.mkv", frames=7)
    restorer = Restorer(network=Third(3), device="cpu")
    restore_video(clip, tmp_path / "one.mkv", restorer, quality=100)
    monkeypatch.setattr(Restorer, "together", lambda self, height, width: 4)
    restore_video(clip, tmp_path / "four.mkv", restorer, quality=100)
    for before, after in zip(
        read_planes(tmp_path / "one.mkv"), read_planes(tmp_path / "four.mkv"), strict=True
    ):
        assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_windows_of_channels_that_do_not_fit_are_named():
    class Two(Third):
        def __init__(self) -> None:
            super().__init__(2)

    with pytest.raises(ValueError, match="2 channels per frame"):
        restore_windows(torch.zeros(1, 9, 8, 8), restorer=Restorer(network=Two(), device="cpu"), channels=3)


def noisy(path: Path, levels: list[float]) -> Path:
    """A lossless clip of grey frames with this much noise each."""
    generator = np.random.default_rng(0)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 96, "gray"
        for number, level in enumerate(levels):
            pixels = generator.normal(128, level, (96, 96)).round().clip(0, 255).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="gray")
            frame.pts = number
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("frames", [1, 5, 11, 260])
def test_the_noise_level_is_the_median_over_the_whole_length(frames: int, tmp_path: Path):
    levels = [20.0] * frames
    if frames > 5:
        levels[: frames // 3] = [5.0] * (frames // 3)
    assert estimated_sigma(noisy(tmp_path / "clip.mkv", levels), channels=1) == pytest.approx(20, abs=2)


def test_frames_too_small_for_an_estimate_are_named(tmp_path: Path):
    with pytest.raises(ValueError, match=r"too small to estimate its noise level .*give it as a number"):
        estimated_sigma(write_clip(tmp_path / "clip.mkv", size=(16, 16)))


def test_one_noise_level_serves_all_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The network gets the estimated level with each frame."""
    seen = []

    class Conditioned(Network):
        in_channels = out_channels = 3
        condition_channels = 1

        def restore(self, x: torch.Tensor, condition: torch.Tensor | None) -> torch.Tensor:
            assert condition is not None
            seen.append(float(condition.mean()) * 255)
            return x

    clip = noisy(tmp_path / "clip.mkv", [5.0, 20.0, 20.0, 20.0, 5.0])
    restorer = Restorer(network=Conditioned(), device="cpu")
    outcome = restore_video(clip, tmp_path / "out.mkv", restorer, estimate=True)
    assert outcome.sigma == pytest.approx(20 * 3**0.5, abs=3)  # noise that is equal in three channels
    assert len(seen) >= 5
    assert seen == pytest.approx([outcome.sigma] * len(seen))
