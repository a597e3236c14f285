"""What a video holds beside its pictures: sounds, subtitles, a cover, fonts, a time code; and its clock."""

import io
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

av = pytest.importorskip("av", reason="pip install 'restora[video]'")

from clips import packets, read_times, write_clip  # noqa: E402
from identity_model import identity_model  # noqa: E402

from restora.artifact.restorer import Restorer  # noqa: E402
from restora.video.restoring import restore_video  # noqa: E402


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Restorer:
    return Restorer.load(identity_model(tmp_path_factory.mktemp("models") / "same"), device="cpu")


def copied(source: Path, path: Path, add: Callable[[Any], list[Any]], late: int = 0, **metadata: str) -> Path:
    """The clip with what `add` adds to the container, whose packets it returns; `late` in seconds."""
    with av.open(str(source)) as given, av.open(str(path), "w") as out:
        made = {stream.index: out.add_stream_from_template(stream, opaque=True) for stream in given.streams}
        made[0].metadata.update(metadata)
        for packet in add(out):
            out.mux(packet)
        for packet in given.demux():
            if packet.size:
                packet.pts += round(late / packet.time_base)
                packet.dts += round(late / packet.time_base)
                packet.stream = made[packet.stream.index]
                out.mux(packet)
    return path


def packet(stream: Any, data: bytes, at: int = 0, lasts: int = 100) -> Any:
    made = av.Packet(data)
    made.pts = made.dts = at
    made.duration, made.time_base, made.stream = lasts, Fraction(1, 1000), stream
    return made


def subtitles(kind: str, text: bytes) -> Callable[[Any], list[Any]]:
    return lambda out: [packet(out.add_mux_stream(kind, time_base=Fraction(1, 1000)), text, at=40)]


def cover(out: Any) -> list[Any]:
    data = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(data, "JPEG")
    stream = out.add_mux_stream("mjpeg", width=32, height=32)
    stream.disposition, stream.time_base = 1024, Fraction(1, 1000)
    return [packet(stream, data.getvalue())]


def streams(path: Path) -> list[tuple[str, str]]:
    with av.open(str(path)) as container:
        return [(stream.type, stream.name) for stream in container.streams]


def test_subtitles_are_copied_or_named(tmp_path: Path, identity: Restorer):
    clip = write_clip(tmp_path / "clip.mp4", sound=True)
    text = copied(clip, tmp_path / "text.mkv", subtitles("subrip", b"hello"))
    assert restore_video(text, tmp_path / "same.mkv", identity).lost == ()
    assert packets(tmp_path / "same.mkv", "subtitles") == packets(text, "subtitles") == [b"hello"]
    assert restore_video(text, tmp_path / "other.mp4", identity).lost == ("subtitles (srt)",)
    timed = copied(clip, tmp_path / "timed.mp4", subtitles("mov_text", b"\0\5hello"))
    assert restore_video(timed, tmp_path / "same.mp4", identity).lost == ()
    assert b"\0\5hello" in packets(tmp_path / "same.mp4", "subtitles")


def test_a_cover_is_no_video(tmp_path: Path, identity: Restorer):
    clip = copied(write_clip(tmp_path / "clip.mp4"), tmp_path / "cover.mp4", cover)
    outcome = restore_video(clip, tmp_path / "out.mp4", identity)
    assert (outcome.lost, outcome.frames) == ((), 6)
    assert [name for _, name in streams(tmp_path / "out.mp4")] == ["h264", "mjpeg"]
    assert restore_video(clip, tmp_path / "out.mkv", identity).lost == ("a picture (mjpeg)",)
    assert streams(tmp_path / "out.mkv") == [("video", "h264")]


def test_fonts_are_kept_in_matroska(tmp_path: Path, identity: Restorer):
    def font(out: Any) -> list[Any]:
        out.add_attachment("a.ttf", "font/ttf", b"font" * 50)
        return []

    clip = copied(write_clip(tmp_path / "clip.mp4"), tmp_path / "font.mkv", font)
    assert restore_video(clip, tmp_path / "out.mkv", identity).lost == ()
    with av.open(str(tmp_path / "out.mkv")) as made:
        assert made.streams[1].data == b"font" * 50
    for suffix in (".mp4", ".webm"):
        assert restore_video(clip, tmp_path / f"out{suffix}", identity).lost == ("attachment (a.ttf)",)


def test_a_time_code_is_kept(tmp_path: Path, identity: Restorer):
    clip = copied(
        write_clip(tmp_path / "clip.mov"), tmp_path / "code.mov", lambda out: [], timecode="01:02:03:04"
    )
    assert ("data", None) in streams(clip)
    assert restore_video(clip, tmp_path / "out.mov", identity).lost == ()
    with av.open(str(tmp_path / "out.mov")) as made:
        assert made.streams.video[0].metadata["timecode"] == "01:02:03:04"
    outcome = restore_video(clip, tmp_path / "bare.mov", identity, strip_metadata=True)
    assert streams(tmp_path / "bare.mov") == [("video", "h264")]
    assert outcome.lost == ()


def test_a_clock_that_starts_anywhere_starts_at_zero_with_the_sound_beside_it(
    tmp_path: Path, identity: Restorer
):
    clip = copied(
        write_clip(tmp_path / "clip.mp4", sound=True), tmp_path / "late.mts", lambda out: [], late=3600
    )
    assert restore_video(clip, tmp_path / "out.mp4", identity).lost == ()

    def starts(path: Path) -> list[Fraction]:
        with av.open(str(path)) as container:
            first: dict[int, Fraction] = {}
            for held in container.demux():
                if held.size:
                    first.setdefault(held.stream.index, held.pts * held.time_base)
            return list(first.values())

    assert min(starts(clip)) > 3590
    video, sound = starts(tmp_path / "out.mp4")
    assert float(video - sound) == pytest.approx(float(starts(clip)[0] - starts(clip)[1]), abs=0.002)
    assert read_times(tmp_path / "out.mp4")[0] < Fraction(1, 10)
