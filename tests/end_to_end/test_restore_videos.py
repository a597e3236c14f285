"""`restora restore` of videos, and of folders that hold both videos and photos."""

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

av = pytest.importorskip("av", reason="pip install 'restora[video]'")

from clips import FRAMES, picture, read_planes, write_clip  # noqa: E402
from identity_model import identity_model  # noqa: E402

from restora.apps.restore import main as restore  # noqa: E402
from restora.apps.restoring import video as command  # noqa: E402
from restora.apps.restoring.plan import Naming  # noqa: E402
from restora.apps.restoring.watching import appearing  # noqa: E402


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(identity_model(tmp_path_factory.mktemp("models") / "same"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two videos, one in a folder of its own, a photo and a text."""
    made = tmp_path / "in"
    (made / "more").mkdir(parents=True)
    write_clip(made / "a.mp4")
    write_clip(made / "more" / "b.mkv")
    Image.fromarray(picture(0)).save(made / "c.png")
    (made / "notes.txt").write_text("summer")
    return made


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_one_video(folder: Path, model: str, capsys: pytest.CaptureFixture[str]):
    out = folder / "new" / "a.webm"
    assert restore([model, str(folder / "a.mp4"), str(out)]) == 0
    assert len(read_planes(out)) == FRAMES
    assert "restored 1 of 1 videos" in capsys.readouterr().out


def test_a_folder_of_videos_and_photos(folder: Path, model: str, capsys: pytest.CaptureFixture[str]):
    out = folder.parent / "out"
    assert restore([model, str(folder), str(out)]) == 0
    assert files(out) == ["a.mp4", "c.png", "more/b.mkv"]
    said = capsys.readouterr()
    assert "restored 3 of 3 files" in said.out
    assert "not photos by their names: 1 file" in said.out
    assert np.array_equal(np.asarray(Image.open(out / "c.png")), picture(0))
    (out / "a.mp4").unlink()
    before = (out / "more" / "b.mkv").stat().st_mtime_ns
    assert restore([model, str(folder), str(out), "--skip-existing"]) == 0
    assert "2 files skipped" in capsys.readouterr().out
    assert (out / "more" / "b.mkv").stat().st_mtime_ns == before
    assert (out / "a.mp4").exists()
    with pytest.raises(ValueError, match="exists"):
        restore([model, str(folder), str(out)])


def test_formats_are_of_photos_or_of_videos(folder: Path, model: str):
    out = folder.parent / "out"
    assert (
        restore([model, str(folder), str(out), "--format", "mkv", "--suffix", "_new", "--quality", "100"])
        == 0
    )
    assert files(out) == ["a_new.mkv", "c_new.png", "more/b_new.mkv"]
    for name in ("a_new.mkv", "more/b_new.mkv"):
        with av.open(str(out / name)) as made:
            assert made.streams.video[0].codec_context.name == "ffv1"
    assert restore([model, str(folder), str(out), "--format", "jpg"]) == 0
    assert files(out)[:2] == ["a.mp4", "a_new.mkv"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--mask", "#ff00ff"], "--mask is of one photo: leave it out"),
        (["--compare"], "--compare is of photos: leave it out"),
    ],
)
def test_options_that_are_of_photos(
    options: list[str], reason: str, folder: Path, model: str, capsys: pytest.CaptureFixture[str]
):
    clip = folder / "a.mp4"
    assert restore([model, str(clip), str(folder / "out.mp4"), *options]) == 1
    assert f"a.mp4: is a video, and {reason}" in capsys.readouterr().err
    assert restore(["method:zs_n2n", str(clip), str(folder / "out.mp4")]) == 1
    assert "a method is fitted to one photo: give a model" in capsys.readouterr().err
    assert not (folder / "out.mp4").exists()


WRONG = [
    (["{}/a.mp4", "{}/a.png"], r"\.png of a video cannot be written: name it \*\.mp4"),
    (["{}/c.png", "{}/c.mp4"], r"\.mp4 of a video cannot be written|\.mp4 of a photo cannot be written"),
    (["{}/a.mp4", "{}/a.mp4", "--overwrite"], "one of the videos to restore and would be overwritten"),
    (["{}/a.mp4", "{}/a.wmv"], r"\.wmv of a video cannot be written"),
    (["{}/a.mp4", "{}/a.mkv", "--format", "mp4"], "--format mp4 does not match OUTPUT a.mkv"),
    (["{}/a.mp4", "{}/a.mkv", "--format", "png"], "--format png does not match OUTPUT a.mkv"),
    (["{}", "{}/new.mp4"], "is a folder, but .*new.mp4 is a video's name"),
]


@pytest.mark.parametrize(("words", "reason"), WRONG)
def test_names_that_do_not_fit(words: list[str], reason: str, folder: Path, model: str):
    with pytest.raises(ValueError, match=reason):
        restore([model, *(word.format(folder) for word in words)])


def test_a_model_that_is_a_video_is_named(folder: Path):
    with pytest.raises(ValueError, match=r"a\.mp4 is a video, not a model"):
        restore([str(folder / "a.mp4"), str(folder / "a.mp4"), str(folder / "out.mp4")])


def test_formats_that_are_only_read_name_the_option(
    folder: Path, model: str, capsys: pytest.CaptureFixture[str]
):
    write_clip(folder / "d.flv")
    out = folder.parent / "out"
    assert restore([model, str(folder / "d.flv"), str(out)]) == 1
    assert "d.flv: .flv is not a format that can be written: add --format mp4" in capsys.readouterr().err
    assert restore([model, str(folder / "d.flv"), str(out), "--format", "mp4"]) == 0
    assert files(out) == ["d.mp4"]


def test_faulty_videos_are_named_and_the_others_go_on(
    folder: Path, model: str, capsys: pytest.CaptureFixture[str]
):
    whole = write_clip(folder / "cut.mp4", frames=30, container_options={"movflags": "faststart"})
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    (folder / "text.mp4").write_text("a letter")
    write_clip(folder / "hdr.mp4", color_trc=16)
    write_clip(folder / "sound.webm", codec="libvpx-vp9")
    out = folder.parent / "out"
    assert restore([model, str(folder), str(out)]) == 1
    said = capsys.readouterr()
    assert "restored 5 of 7 files" in said.out
    assert "text.mp4: is not a video" in said.err
    assert "hdr.mp4: is HDR (PQ)" in said.err
    assert "restore: cut.mp4: " in said.err
    assert files(out) == ["a.mp4", "c.png", "cut.mp4", "more/b.mkv", "sound.webm"]


def test_what_files_cannot_hold_is_counted(folder: Path, model: str, capsys: pytest.CaptureFixture[str]):
    write_clip(folder / "a.mp4", sound=True, pixels="yuv422p")
    assert restore([model, str(folder / "a.mp4"), str(folder / "out.webm")]) == 0
    said = capsys.readouterr().out
    assert (
        "left out of the written files: colour at more than half the size (1 video), sound (aac) (1 video)"
        in said
    )


def test_progress_counts_frames_in_80_columns(folder: Path, model: str, monkeypatch, capsys):
    monkeypatch.setattr(command, "SECONDS", 0.0)
    long = folder / f"{'long' * 20}.mp4"
    write_clip(long, frames=20)
    assert restore([model, str(long), str(folder / "out.mp4")]) == 0
    said = capsys.readouterr().err
    assert "frame 10/20" in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_no_half_video(number: int, folder: Path, model: str, monkeypatch, capsys):
    original = command.frames_done

    def slow(done: float, total: int) -> str:
        time.sleep(0.02)
        if done > 5:
            sent.set()
        return original(done, total)

    sent = threading.Event()
    monkeypatch.setattr("restora.apps.restoring.running.frames_done", slow)
    write_clip(folder / "a.mp4", frames=200)

    def send() -> None:
        sent.wait(60)
        os.kill(os.getpid(), number)

    sender = threading.Thread(target=send)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # parallel tests ignore it
    try:
        sender.start()
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            restore([model, str(folder / "a.mp4"), str(folder / "out" / "a.mp4")])
    finally:
        sender.join()
        signal.signal(signal.SIGINT, before)
    assert "stopped before a video was restored" in capsys.readouterr().err
    assert files(folder / "out") == []


def test_the_help_fits_in_80_columns(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        restore(["--help"])
    said = capsys.readouterr().out
    assert "webp" in said
    assert "mkv" in said
    assert max(map(len, said.splitlines())) <= 80


def test_watching_sees_videos(folder: Path):
    plans = appearing(folder, folder.parent / "out", Naming(), overwrite=False, seconds=0.01)
    assert sorted(job.name for job in next(plans).jobs) == ["a.mp4", "c.png", "more/b.mkv"]


def test_training_data_and_the_server_name_the_command(folder: Path):
    from restora.photos.errors import DecodingError
    from restora.photos.header import look
    from restora.photos.listing import look_through

    reasons = {path.name: reason for path, reason in look_through(folder).left_out.items()}
    assert "`restora restore [MODEL] VIDEO OUTPUT`" in reasons["a.mp4"]
    with pytest.raises(DecodingError, match=r"`restora restore \[MODEL\] VIDEO OUTPUT` restores it"):
        look((folder / "a.mp4").read_bytes(), "a.mp4")
