"""Videos through an identity network: what comes back is what went in, and what cannot is named."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

av = pytest.importorskip("av", reason="pip install 'restora[video]'")

from clips import FRAMES, HEIGHT, WIDTH, packets, read_planes, read_times, write_clip  # noqa: E402
from identity_model import identity_model  # noqa: E402

from restora.artifact.restorer import Restorer  # noqa: E402
from restora.photos.errors import DecodingError  # noqa: E402
from restora.video.reading import look  # noqa: E402
from restora.video.restoring import restore_video  # noqa: E402

TITLE = {"title": "Grüße", "artist": "nobody"}


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Restorer:
    return Restorer.load(identity_model(tmp_path_factory.mktemp("models") / "same"), device="cpu")


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> Restorer:
    return Restorer.load(identity_model(tmp_path_factory.mktemp("models") / "twice", scale=2), device="cpu")


def video_of(path: Path):
    """(stream, first frame) after the file was closed again."""
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        frame = next(container.decode(stream))
        return stream, frame, container.metadata, stream.sample_aspect_ratio, stream.codec_context.name


CODED = [
    {"pixels": "yuv420p"},
    {"pixels": "yuv422p"},
    {"pixels": "yuv444p"},
    {"pixels": "yuv420p10le"},
    {"pixels": "gray"},
    {"pixels": "yuv420p", "colorspace": 1, "color_primaries": 1, "color_trc": 1, "color_range": 1},
    {"pixels": "yuv420p", "colorspace": 6, "color_primaries": 6, "color_trc": 6, "color_range": 2},
    {"pixels": "bgr0", "codec": "ffv1"},
    {"pixels": "yuv411p", "codec": "ffv1"},
    {"pixels": "yuvj420p", "codec": "mjpeg", "color_range": 2},
    {"pixels": "nv12", "codec": "rawvideo"},
    {"pixels": "yuyv422", "codec": "rawvideo"},
]


@pytest.mark.parametrize("how", CODED, ids=lambda how: "-".join(map(str, how.values())))
def test_ffv1_keeps_every_number_and_tag(how: dict, tmp_path: Path, identity: Restorer):
    clip = write_clip(tmp_path / "clip.mkv", **how)
    outcome = restore_video(clip, tmp_path / "out.mkv", identity, quality=100)
    assert (outcome.frames, outcome.fault, outcome.lost) == (FRAMES, "", ())
    given, made = read_planes(clip), read_planes(tmp_path / "out.mkv")
    for before, after in zip(given, made, strict=True):
        for plane, same in zip(before, after, strict=True):
            assert np.array_equal(plane, same)
    for name in ("colorspace", "color_range", "color_primaries", "color_trc"):
        before, after = (getattr(video_of(path)[1], name) for path in (clip, tmp_path / "out.mkv"))
        if name in how or how["pixels"] != "gray":
            assert before == after or (name == "colorspace" and how["pixels"] == "bgr0"), name


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v"])
def test_every_container_keeps_frames_times_and_nearly_the_pixels(
    suffix: str, tmp_path: Path, identity: Restorer
):
    clip = write_clip(tmp_path / "clip.mp4", rate=Fraction(30000, 1001), metadata=TITLE)
    out = tmp_path / f"out{suffix}"
    assert restore_video(clip, out, identity).lost == ()
    assert video_of(out)[4] == ("vp9" if suffix == ".webm" else "h264")
    for before, after in zip(read_planes(clip), read_planes(out), strict=True):
        for plane, near in zip(before, after, strict=True):
            assert np.abs(plane.astype(int) - near).mean() < 1.5
    given, made = read_times(clip), read_times(out)
    start = made[0] if suffix == ".avi" else 0  # FFmpeg takes the first frame of H.264 in AVI for the second
    assert max(abs(a - b + start) for a, b in zip(given, made, strict=True)) <= Fraction(1, 1000)
    assert video_of(out)[2].get("title", "").startswith("Gr")


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_frames_of_unequal_length_keep_their_times(suffix: str, tmp_path: Path, identity: Restorer):
    times = [0, 40, 50, 200, 1000, 1001]
    clip = write_clip(tmp_path / "clip.mkv", times=times, base=Fraction(1, 1000))
    restore_video(clip, tmp_path / f"out{suffix}", identity)
    assert read_times(tmp_path / f"out{suffix}") == [Fraction(time, 1000) for time in times]


def test_avi_which_has_one_rate_refuses_them(tmp_path: Path, identity: Restorer):
    clip = write_clip(tmp_path / "clip.mkv", times=[0, 40, 45, 50, 1000, 1001], base=Fraction(1, 1000))
    with pytest.raises(ValueError, match=r"unequal lengths, which AVI cannot hold: name the output \.mp4"):
        restore_video(clip, tmp_path / "out.avi", identity)
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mkv"]


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".avi"])
def test_sound_is_copied_bit_for_bit(suffix: str, tmp_path: Path, identity: Restorer):
    clip = write_clip(tmp_path / "clip.mp4", frames=12, sound=True)
    out = tmp_path / f"out{suffix}"
    assert restore_video(clip, out, identity).lost == ()
    assert packets(clip, "audio") == packets(out, "audio")
    assert len(read_planes(out)) == 12


def test_sound_that_the_container_cannot_hold_is_named(tmp_path: Path, identity: Restorer):
    clip = write_clip(tmp_path / "clip.mp4", sound=True)
    outcome = restore_video(clip, tmp_path / "out.webm", identity)
    assert outcome.lost == ("sound (aac)",)
    assert outcome.frames == FRAMES


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
def test_a_turned_video_stays_turned(suffix: str, tmp_path: Path, identity: Restorer):
    clip = write_clip(tmp_path / "clip.mp4", turned=90)
    assert video_of(clip)[1].rotation == 90
    restore_video(clip, tmp_path / f"out{suffix}", identity)
    frame = video_of(tmp_path / f"out{suffix}")[1]
    assert (frame.rotation, frame.width, frame.height) == (90, WIDTH, HEIGHT)


def test_avi_refuses_a_turned_video(tmp_path: Path, identity: Restorer):
    clip = write_clip(tmp_path / "clip.mp4", turned=90)
    with pytest.raises(ValueError, match=r"is turned when it is shown, which AVI cannot hold"):
        restore_video(clip, tmp_path / "out.avi", identity)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".avi"])
def test_pixels_that_are_not_square_stay_so(suffix: str, tmp_path: Path, identity: Restorer):
    clip = write_clip(tmp_path / "clip.mkv", ratio=Fraction(64, 45))
    restore_video(clip, tmp_path / f"out{suffix}", identity)
    assert video_of(tmp_path / f"out{suffix}")[3] == Fraction(64, 45)


def test_webm_refuses_pixels_that_are_not_square(tmp_path: Path, identity: Restorer):
    clip = write_clip(tmp_path / "clip.mkv", ratio=Fraction(64, 45))
    with pytest.raises(ValueError, match=r"pixels that are not square.*name the output \.mp4"):
        restore_video(clip, tmp_path / "out.webm", identity)


def test_chapters_and_metadata_of_any_name_are_kept(tmp_path: Path, identity: Restorer):
    chapters = [
        {"id": 1, "start": 0, "end": 100, "time_base": Fraction(1, 1000), "metadata": {"title": "One"}},
        {"id": 2, "start": 100, "end": 240, "time_base": Fraction(1, 1000), "metadata": {"title": "Two"}},
    ]
    clip = write_clip(tmp_path / "clip.mkv", chapters=chapters, metadata={**TITLE, "camera": "old"})
    for name in ("out.mkv", "out.mp4"):
        restore_video(clip, tmp_path / name, identity)
        with av.open(str(tmp_path / name)) as made:
            assert [chapter["metadata"]["title"] for chapter in made.chapters()] == ["One", "Two"], name
            held = {key.lower(): value for key, value in made.metadata.items()}
            assert (held["title"], held["camera"]) == ("Grüße", "old"), name
    restore_video(clip, tmp_path / "bare.mp4", identity, strip_metadata=True)
    with av.open(str(tmp_path / "bare.mp4")) as made:
        assert not {"title", "camera", "artist"} & set(made.metadata)
        assert not made.chapters()


def test_a_network_that_enlarges_gives_the_larger_size_and_names_its_colours(tmp_path: Path, twice: Restorer):
    clip = write_clip(tmp_path / "clip.mp4", size=(640, 360), frames=2, turned=90)
    restore_video(clip, tmp_path / "out.mp4", twice)
    frame = video_of(tmp_path / "out.mp4")[1]
    assert (frame.width, frame.height, frame.rotation) == (1280, 720, 90)
    assert (video_of(clip)[1].colorspace, frame.colorspace) == (
        2,
        6,
    )  # a player would take 720 rows for BT.709
    matrices = []
    for path in (clip, tmp_path / "out.mp4"):
        with av.open(str(path)) as container:
            first = next(container.decode(video=0))
            matrices.append(np.frombuffer(bytes(first.side_data["DISPLAYMATRIX"]), np.int32))
    assert list(matrices[1][[0, 1, 3, 4]]) == list(matrices[0][[0, 1, 3, 4]])


@pytest.mark.parametrize(("suffix", "size"), [(".mp4", (50, 34)), (".webm", (49, 33)), (".mkv", (49, 33))])
def test_odd_sides(suffix: str, size: tuple[int, int], tmp_path: Path, identity: Restorer):
    clip = write_clip(tmp_path / "clip.mkv", size=(49, 33), codec="ffv1", frames=2)
    outcome = restore_video(clip, tmp_path / f"out{suffix}", identity, quality=100)
    frame = video_of(tmp_path / f"out{suffix}")[1]
    assert (frame.width, frame.height) == size
    assert ("an odd side" in " ".join(outcome.lost)) == (suffix == ".mp4")


def test_strength_zero_is_the_input(tmp_path: Path, twice: Restorer, identity: Restorer):
    clip = write_clip(tmp_path / "clip.mkv")
    restore_video(clip, tmp_path / "out.mkv", identity, quality=100, strength=0.0, self_ensemble=True)
    assert all(
        np.array_equal(a, b)
        for before, after in zip(read_planes(clip), read_planes(tmp_path / "out.mkv"), strict=True)
        for a, b in zip(before, after, strict=True)
    )


REFUSED = {
    "interlaced": ({"codec": "mpeg2video", "options": {"flags": "+ildct+ilme"}, "size": (64, 64)}, "bwdif"),
    "PQ": ({"color_trc": 16, "color_primaries": 9, "colorspace": 9}, r"is HDR \(PQ\)"),
    "HLG": ({"color_trc": 18}, r"is HDR \(HLG\)"),
    "transparent": ({"codec": "ffv1", "pixels": "yuva420p"}, "is transparent"),
    "matrix": ({"colorspace": 8}, "matrix 8"),
    "encrypted": (
        {
            "container": "mp4",
            "container_options": {
                "encryption_scheme": "cenc-aes-ctr",
                "encryption_key": "00112233445566778899aabbccddeeff",
                "encryption_kid": "00112233445566778899aabbccddeeff",
            },
        },
        "is encrypted",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_would_be_restored_wrongly_is_refused(kind: str, tmp_path: Path, identity: Restorer):
    how, reason = REFUSED[kind]
    clip = write_clip(tmp_path / "clip.mkv", **how)
    with pytest.raises(DecodingError, match=reason):
        look(clip)
    with pytest.raises(DecodingError, match=reason):
        restore_video(clip, tmp_path / "out.mkv", identity)
    assert not (tmp_path / "out.mkv").exists()
