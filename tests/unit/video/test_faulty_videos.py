"""Videos that are damaged, cut, too large or none at all, and disks that are full."""

import sys
from pathlib import Path

import numpy as np
import pytest

av = pytest.importorskip("av", reason="pip install 'restora[video]'")

from clips import FRAMES, read_planes, write_clip  # noqa: E402
from identity_model import identity_model  # noqa: E402

from restora.artifact.restorer import Restorer  # noqa: E402
from restora.photos.errors import DecodingError, MissingPackageError  # noqa: E402
from restora.video import restoring  # noqa: E402
from restora.video.reading import Clip, look  # noqa: E402
from restora.video.restoring import restore_video  # noqa: E402
from restora.video.writing import encoding_for  # noqa: E402


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Restorer:
    return Restorer.load(identity_model(tmp_path_factory.mktemp("models") / "same"), device="cpu")


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "clip.mkv", frames=30, size=(96, 64), options={"crf": "1", "g": "10"})


def test_a_damaged_video_is_restored_as_far_as_it_can_be_and_said_so(
    clip: Path, tmp_path: Path, identity: Restorer
):
    data = bytearray(clip.read_bytes())
    for place in range(len(data) // 2, len(data) - 2000, 997):
        data[place : place + 20] = bytes(20)
    damaged = tmp_path / "damaged.mkv"
    damaged.write_bytes(data)
    outcome = restore_video(damaged, tmp_path / "out.mkv", identity)
    assert "is damaged in" in outcome.fault
    assert len(read_planes(tmp_path / "out.mkv")) == outcome.frames > 10


def test_a_cut_video_is_restored_to_its_end_and_said_so(tmp_path: Path, identity: Restorer):
    whole = write_clip(
        tmp_path / "clip.mp4", frames=30, size=(96, 64), container_options={"movflags": "faststart"}
    )
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    outcome = restore_video(cut, tmp_path / "out.mp4", identity)
    assert 0 < outcome.frames < 30
    assert outcome.fault
    assert len(read_planes(tmp_path / "out.mp4")) == outcome.frames


@pytest.mark.parametrize(("suffix", "codec"), [(".mkv", "libx264"), (".webm", "libvpx-vp9"), (".flv", "flv")])
def test_a_cut_video_whose_header_counts_no_frames_is_said_to_be_cut(
    suffix: str, codec: str, tmp_path: Path, identity: Restorer
):
    whole = write_clip(tmp_path / f"clip{suffix}", frames=60, size=(48, 32), codec=codec, options={"g": "5"})
    assert restore_video(whole, tmp_path / "whole.mkv", identity).fault == ""
    data = whole.read_bytes()
    whole.write_bytes(data[: len(data) // 2])
    outcome = restore_video(whole, tmp_path / "out.mkv", identity)
    assert 0 < outcome.frames < 45
    assert outcome.fault


def test_a_video_that_changes_its_size_is_restored_up_to_there(tmp_path: Path, identity: Restorer):
    parts = [write_clip(tmp_path / f"{width}.ts", size=(width, 32), container="mpegts") for width in (48, 64)]
    both = tmp_path / "both.ts"
    both.write_bytes(b"".join(part.read_bytes() for part in parts))
    outcome = restore_video(both, tmp_path / "out.mp4", identity)
    assert outcome.frames == FRAMES
    assert "changes its size to 64x32" in outcome.fault


PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nclip.mkv\n#EXT-X-ENDLIST\n"
NO_VIDEOS = {
    "text": (b"a letter to a friend\n" * 40, "is not a video in a known format"),
    "empty": (b"", "is empty"),
    "playlist": (PLAYLIST, "is not a video in a known format"),
    "list": (b"ffconcat version 1.0\nfile clip.mkv\n", "is not a video in a known format"),
    "index": (b"\0\0\0\x18ftypisom\0\0\2\0isomiso2" + bytes(3000), "cut short or damaged"),
}


@pytest.mark.parametrize("kind", NO_VIDEOS)
def test_what_is_no_video_is_named(kind: str, clip: Path, tmp_path: Path, identity: Restorer):
    data, reason = NO_VIDEOS[kind]
    (tmp_path / "none.mp4").write_bytes(data)
    with pytest.raises(DecodingError, match=reason):
        restore_video(tmp_path / "none.mp4", tmp_path / "out.mp4", identity)
    assert not (tmp_path / "out.mp4").exists()


def test_sound_alone_and_a_film_without_frames_are_named(tmp_path: Path, clip: Path):
    with av.open(str(tmp_path / "sound.mp4"), "w") as out:
        voice = out.add_stream("aac", rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 48000
        out.mux(voice.encode(frame))
        out.mux(voice.encode(None))
    with pytest.raises(DecodingError, match="only sound"):
        look(tmp_path / "sound.mp4")
    with av.open(str(clip)) as given, av.open(str(tmp_path / "none.mkv"), "w") as out:
        made = out.add_stream_from_template(given.streams.video[0], opaque=True)
        packet = av.Packet(bytes(100))
        packet.stream, packet.pts, packet.dts = made, 0, 0
        out.mux(packet)
    with pytest.raises(DecodingError, match="has no frame that can be decoded"):
        look(tmp_path / "none.mkv")


def test_the_limit_on_megapixels_is_that_of_photos(clip: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RESTORA_MAX_MEGAPIXELS", "0.005")
    with pytest.raises(DecodingError, match=r"is too large: 96x64 .*RESTORA_MAX_MEGAPIXELS"):
        look(clip)


def test_names_that_ffmpeg_takes_for_protocols_and_patterns(tmp_path: Path, clip: Path, identity: Restorer):
    for name in ("concat:a|b.mkv", "http:%06d.mkv", "-i.mkv", "ß 'x'.mkv"):
        clip.rename(tmp_path / name)
        outcome = restore_video(tmp_path / name, tmp_path / f"out {name}", identity)
        assert len(read_planes(tmp_path / f"out {name}")) == outcome.frames == 30
        (tmp_path / name).rename(clip)


def test_an_exception_in_the_middle_leaves_nothing(clip: Path, tmp_path: Path, identity: Restorer):
    class Enough(Exception):
        pass

    def stop(done: float, total: int) -> None:
        assert total == 30
        if done >= 10:
            raise Enough

    with pytest.raises(Enough):
        restore_video(clip, tmp_path / "out.mkv", identity, progress=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mkv"]


def test_a_full_disk_is_named_and_leaves_the_file_of_before(
    clip: Path, tmp_path: Path, identity: Restorer, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "out.mkv").write_text("before")
    monkeypatch.setattr("restora.video.writing.file_url", lambda path: "file:/dev/full")
    with pytest.raises(ValueError, match="No space left on device") as failed:
        restore_video(clip, tmp_path / "out.mkv", identity)
    assert failed.value.__cause__.errno == 28
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mkv", "out.mkv"]
    assert (tmp_path / "out.mkv").read_text() == "before"


def test_results_that_the_encoder_cannot_hold_are_named(clip: Path):
    with Clip(clip) as opened:
        with pytest.raises(ValueError, match=r"19200x800 pixels.*16384 a side: name the output \.webm"):
            encoding_for(".mp4", 95, opened, height=800, width=19200, channels=3)
        assert encoding_for(".webm", 95, opened, height=800, width=19200, channels=3)[1] == []


def test_the_input_is_never_the_output_and_only_videos_are_written(
    clip: Path, tmp_path: Path, identity: Restorer
):
    (tmp_path / "link.mkv").symlink_to(clip)
    for target, reason in ((tmp_path / "link.mkv", "would be overwritten"), (tmp_path / "a.png", r"\*\.mp4")):
        with pytest.raises(ValueError, match=reason):
            restore_video(clip, target, identity)
    with pytest.raises(ValueError, match="strength"):
        restore_video(clip, tmp_path / "out.mkv", identity, strength=2)
    with pytest.raises(ValueError, match="quality"):
        restore_video(clip, tmp_path / "out.mkv", identity, quality=0)


def test_without_pyav_the_package_is_named(clip: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'restora\[video\]'"):
        look(clip)


def test_memory_does_not_grow_with_the_length(
    tmp_path: Path, identity: Restorer, monkeypatch: pytest.MonkeyPatch
):
    """The number of frames between decoding and encoding is that of the buffers."""
    inside, most = set(), 0
    entered, encoded = restoring.planes_of, restoring.Writer.write

    def enter(frame):
        nonlocal most
        inside.add(frame.pts)
        most = max(most, len(inside))
        return entered(frame)

    def leave(self, planes, at):
        encoded(self, planes, at)
        inside.discard(at.pts)

    monkeypatch.setattr(restoring, "planes_of", enter)
    monkeypatch.setattr(restoring.Writer, "write", leave)
    clip = write_clip(tmp_path / "clip.mkv", frames=60)
    assert restore_video(clip, tmp_path / "out.mkv", identity).frames == 60
    assert most <= restoring.AHEAD + 2
