"""Folders as people have them: bad files, odd names and links; what a crash leaves, and several commands that
agree."""

import contextlib
import errno
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from photo_kinds import bad_files, colours, photo_kinds
from PIL import Image
from run_folders import photo, write_run
from warm_start import run_code, run_restora, shell_words

from restora import files
from restora.apps.restore import main as restore
from restora.apps.restoring import running
from restora.cli import main
from restora.composing.path_values import with_quoted_paths
from restora.config import compose
from restora.data.packing import pack
from restora.data.sources import Folder
from restora.evaluation.benchmarks.denoise import Denoise
from restora.photos.files import read_photo
from restora.photos.reading import read_photo as read_for_training

KINDS = photo_kinds()


def test_photos_that_would_share_a_name_keep_their_endings(identity, tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("photo.jfif", "photo.jpg"):
        (tmp_path / "in" / name).write_bytes(KINDS[name].data)
    Image.fromarray(colours()).save(tmp_path / "in" / "photo.png")
    assert restore([str(identity), str(tmp_path / "in"), str(tmp_path / "out"), "--format", "png"]) == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["photo.jfif.png", "photo.jpg.png", "photo.png"]


BAD = bad_files()


@pytest.fixture
def bad_folder(tmp_path):
    """What people have in a folder: good photos, and every way not to be one."""
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, make in BAD.items():
        (folder / name).write_bytes(make())
    for name in ("rgb8.png", "rgb16.tif", "still.gif", "photo.jfif"):
        (folder / name).write_bytes(KINDS[name].data)
    (folder / "nowhere.png").symlink_to("gone.png")
    os.mkfifo(folder / "pipe.jpg")
    (folder / "again").symlink_to(".")
    (folder / "twice.png").symlink_to("rgb8.png")
    (folder / "notes.txt").write_text("summer")
    (folder / ".hidden.png").write_bytes(b"left by another system")
    return folder


GOOD = {"rgb8.png", "rgb16.tif", "still.gif", "photo.jfif"}

NAMED = {*BAD, "nowhere.png", "pipe.jpg"}


def reasons_of_restore(model, folder, output, capsys):
    code = restore([str(model), str(folder), str(output), "--format", "png"])
    assert code == 1
    prefix = "restora restore: "
    lines = [line.removeprefix(prefix) for line in capsys.readouterr().err.splitlines() if prefix in line]
    return dict(line.split(": ", 1) for line in lines if "were not restored, or not" not in line)


def reasons_of_packing(folder, store_dir):
    source = Folder(root=folder)
    files = [photo for split in ("train", "val", "test") for photo in source.photos(split)]
    store = pack(files, store_dir=store_dir, name="bad", channels="rgb", processes=1)
    gone = {os.path.basename(item.path): item.reason for item in store.left_out}
    return gone | {path.name: reason for path, reason in source.left_out().items()}


def reasons_one_by_one(folder, read):
    """As `preview` and `evaluate` read: a path, and an error that names it."""
    reasons = {}
    for name in sorted(NAMED | GOOD):
        try:
            read(folder / name)
        except ValueError as error:
            reasons[name] = str(error).removeprefix(f"{folder / name}: ")
    return reasons


def test_commands_agree_about_a_bad_folder(identity, bad_folder, tmp_path, capsys):
    restoring = reasons_of_restore(identity, bad_folder, tmp_path / "out", capsys)
    packing = reasons_of_packing(bad_folder, tmp_path / "store")
    preview = reasons_one_by_one(bad_folder, read_for_training)
    evaluating = [path.name for path in Denoise(root=str(bad_folder), color="rgb", sigma=25).photos]
    table = {
        name: (restoring.get(name), packing.get(name), preview.get(name)) for name in sorted(NAMED | GOOD)
    }
    for name, reasons in table.items():
        raised = re.compile(r" \((--max-megapixels N raises it|set \w+ to raise it)\)")
        if name == "clip.mp4":  # which restoring takes for what it is
            assert reasons[0] != reasons[1]
            reasons = reasons[1:]
        assert len({reason and raised.sub("", reason) for reason in reasons}) == 1, (name, reasons)
        assert (reasons[0] is None) == (name in GOOD), (name, reasons)
    assert set(restoring) == set(packing) == NAMED
    listed_only = {"nowhere.png", "pipe.jpg", "clip.mp4", "picture.jxl"}
    assert set(evaluating) == (NAMED | GOOD) - listed_only
    assert {path.stem for path in (tmp_path / "out").rglob("*.png")} == {os.path.splitext(n)[0] for n in GOOD}


def test_evaluate_names_what_it_leaves_out(bad_folder, caplog):
    benchmark = Denoise(root=str(bad_folder), color="rgb", sigma=25)
    with pytest.raises(ValueError, match=r"bomb\.png: is too large.*60000x60000") as refused:
        benchmark.check()
    broken = len({path.name for path in benchmark.photos} - GOOD)
    assert f"and {broken - 10} more: fix these files" in str(refused.value)  # also those with a good header
    assert "clip.mp4: is a video" in caplog.text


@pytest.mark.parametrize("name", ["a" * 236 + ".png", "照" * 80 + ".png", "é'#,[x] (1).png"])
def test_names_as_long_and_odd_as_the_system_allows(identity, tmp_path, name):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / name).write_bytes(KINDS["rgb8.png"].data)
    assert restore([str(identity), str(tmp_path / "d"), str(tmp_path / "o")]) == 0
    assert [path.name for path in (tmp_path / "o").iterdir()] == [name]


def test_a_name_that_a_suffix_makes_too_long_is_refused_before_computing(identity, tmp_path, capsys):
    (tmp_path / f"{'a' * 246}.png").write_bytes(KINDS["rgb8.png"].data)
    source = tmp_path / f"{'a' * 246}.png"
    assert restore([str(identity), str(source), str(tmp_path / "o"), "--suffix", "_restored"]) == 1
    assert "longer than 255 bytes: give a shorter --suffix" in capsys.readouterr().err
    assert restore([str(identity), str(source), str(tmp_path / "o"), "--compare"]) == 1
    assert "longer than 255 bytes: leave --compare out" in capsys.readouterr().err
    (tmp_path / "o" / source.name).mkdir(parents=True)
    assert restore([str(identity), str(source), str(tmp_path / "o"), "--overwrite"]) == 1
    assert "is a folder: name another OUTPUT" in capsys.readouterr().err


def test_a_picture_of_before_and_after_overwrites_no_photo(identity, tmp_path):
    (tmp_path / "d").mkdir()
    for name in ("a.png", "a.png.compare.jpg"):  # as a restored folder has them
        (tmp_path / "d" / name).write_bytes(KINDS["rgb8.png"].data)
    arguments = [str(identity), str(tmp_path / "d"), str(tmp_path / "o")]
    with pytest.raises(ValueError, match=r"a\.png\.compare\.jpg is both .*leave --compare out"):
        restore([*arguments, "--compare"])
    assert not (tmp_path / "o").exists()


def test_names_that_a_terminal_would_act_on_are_written_out(identity, tmp_path, capsysbinary):
    """Line ends, colours and bytes that are no text, in names of photos that are restored and of
    others; the files keep their names."""
    (tmp_path / "in").mkdir()
    good = [b"a\nb.png", b"\x1b[31m.png", b"\xff\xfe.png", "\u202egnp.png".encode(), b"[bold].png"]
    for name in good:
        Path(os.fsdecode(bytes(tmp_path) + b"/in/" + name)).write_bytes(KINDS["rgb8.png"].data)
    (tmp_path / "in" / "bad\rly.jpg").touch()
    assert restore([str(identity), str(tmp_path / "in"), str(tmp_path / "out")]) == 1
    assert sorted(os.listdir(bytes(tmp_path / "out"))) == sorted(good)
    said = b"".join(capsysbinary.readouterr()).decode()
    assert r"restora restore: bad\rly.jpg: is empty" in said
    for name in (r"a\nb.png", r"\x1b[31m.png", r"\udcff\udcfe.png", r"\u202egnp.png", "[bold].png"):
        assert f"/5 {name}\n" in said


def test_where_nothing_can_be_written_is_said_before_anything_is_computed(identity, tmp_path, monkeypatch):
    def refused(dir):
        if "locked" in str(dir):
            raise OSError(errno.EROFS, "Read-only file system")
        return contextlib.nullcontext()

    photo = tmp_path / "a.png"
    photo.write_bytes(KINDS["rgb8.png"].data)
    (tmp_path / "notes").write_text("summer")
    monkeypatch.setattr(running, "run", None)
    monkeypatch.setattr(files.tempfile, "TemporaryFile", refused)
    (tmp_path / "locked").mkdir()
    for output, words in (
        (tmp_path / "notes", "notes is a file"),
        (tmp_path / "notes" / "deeper" / "o.png", "notes is a file"),
        (tmp_path / "locked", "locked cannot be written to"),
        (tmp_path / "locked" / "new" / "o.png", "locked cannot be written to"),
        ("-", "standard input and output are not supported"),
    ):
        with pytest.raises(ValueError, match=words):
            restore([str(identity), str(photo), str(output)])


@pytest.mark.parametrize("name", ["pic.heic", "pic.gif", "pic.mp4", "pic.jxl"])
def test_a_picture_name_that_cannot_be_written_is_refused(identity, tmp_path, name):
    (tmp_path / "a.png").write_bytes(KINDS["rgb8.png"].data)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.png").write_bytes(KINDS["rgb8.png"].data)
    for source in ("a.png", "folder"):
        with pytest.raises(ValueError, match=name):
            restore([str(identity), str(tmp_path / source), str(tmp_path / name)])
    assert not (tmp_path / name).exists()


def test_a_crash_leaves_no_half_file_and_skip_existing_goes_on(identity, tmp_path):
    """Killed while it writes: what is there is whole; the next run makes the rest, and clears up."""
    (tmp_path / "in").mkdir()
    for number in range(6):
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (700, 700, 3), np.uint8)).save(
            tmp_path / "in" / f"{number}.png"
        )
    script = (
        "import os, sys, restora.files as files\n"
        "original = os.fsync\n"
        "count = []\n"
        "def dies(handle):\n"
        "    count.append(1)\n"
        "    os._exit(9) if len(count) == 3 else original(handle)\n"
        "files.os.fsync = dies\n"
        "from restora.apps.restore import main\n"
        f"main([{str(identity)!r}, {str(tmp_path / 'in')!r}, {str(tmp_path / 'out')!r}])\n"
    )
    done = run_code(script)
    assert done.returncode == 9
    left = list((tmp_path / "out").iterdir())
    assert any(path.suffix == ".part" for path in left)
    whole = [path for path in left if path.suffix == ".png"]
    assert 0 < len(whole) < 6
    for path in whole:
        np.testing.assert_array_equal(read_photo(path).pixels, read_photo(tmp_path / "in" / path.name).pixels)
    times = {path: path.stat().st_mtime_ns for path in whole}
    assert restore([str(identity), str(tmp_path / "in"), str(tmp_path / "out"), "--skip-existing"]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"{n}.png" for n in range(6)]
    assert {path: path.stat().st_mtime_ns for path in whole} == times


def test_links_are_restored_once_and_said(identity, tmp_path, capsys):
    (tmp_path / "album").mkdir()
    (tmp_path / "album" / "b.png").write_bytes(KINDS["rgb8.png"].data)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(KINDS["rgb8.png"].data)
    (tmp_path / "in" / "linked").symlink_to("../album")
    (tmp_path / "in" / "loop").symlink_to(".")
    (tmp_path / "in" / "twice.png").symlink_to("a.png")
    assert restore([str(identity), str(tmp_path / "in"), str(tmp_path / "out")]) == 0
    found = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.png"))
    assert found == ["a.png", "linked/b.png"]
    assert "1 link to photos that are listed already" in capsys.readouterr().out


def test_one_limit_and_one_option(identity, tmp_path, monkeypatch, capsys):
    (tmp_path / "a.png").write_bytes(KINDS["rgb8.png"].data)
    monkeypatch.setenv("RESTORA_MAX_MEGAPIXELS", "0.001")
    arguments = [str(identity), str(tmp_path / "a.png"), str(tmp_path / "o.png")]
    assert restore(arguments) == 1
    assert "the limit is 0.001 (--max-megapixels N raises it)" in capsys.readouterr().err
    assert restore([*arguments, "--max-megapixels", "1"]) == 0


FOLDERS = [
    "José",
    "照片",
    "My Photos (2020)",
    "a,b",
    "it's [new]",
    'say "x"',
    "#1 = best",
    "back\\slash",
    "{x}",
]


@pytest.mark.parametrize("name", FOLDERS)
def test_paths_of_any_characters_in_every_command(tmp_path, name):
    """Composed as the commands do it; the values that arrive are the paths that were typed."""
    root = tmp_path / name
    root.mkdir()
    words = ["data=folder", f"data.source.root={root}", f"data_dir={root}"]
    for command_name, more in (("prepare", []), ("train", [f"output_dir={root}"])):
        config = compose(command_name, with_quoted_paths([*words, *more]))
        assert config.data.source.root == str(root)
        assert config.data_dir == str(root)
    sheet = str(root / "出.png")
    config = compose("preview", with_quoted_paths(["degradation=jpeg", f"output={sheet}"]))
    assert config.output == sheet
    config = compose("evaluate", with_quoted_paths(["benchmark=denoise", f"benchmark.root={root}"]))
    assert config.benchmark.root == str(root)


def test_quoting_leaves_the_grammar_to_those_who_use_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kept = [
        "network.depth=17,20",
        "weights=null",
        "data.source.root='a b'",
        "-m",
        "seed=1",
        "benchmark.root=???",
    ]
    assert with_quoted_paths(kept, sweep=True) == kept
    assert with_quoted_paths(["data.source.root=a,b"], sweep=True) == ["data.source.root='a','b'"]
    assert with_quoted_paths(["init=null,a b"], sweep=True) == ["init=null,'a b'"]
    (tmp_path / "a,b").mkdir()
    assert with_quoted_paths(["data.source.root=a,b"], sweep=True) == ["data.source.root='a,b'"]


def test_the_home_folder_is_that_of_the_user_in_every_shell(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    words = ["hydra.run.dir=~/run", "data.source.root=~/my photos", "output=a~/b"]
    made = [f"hydra.run.dir={tmp_path}/run", f"data.source.root='{tmp_path}/my photos'", "output='a~/b'"]
    assert with_quoted_paths(words) == made
    assert with_quoted_paths(["init=~/a,~/b"], sweep=True) == [f"init='{tmp_path}/a','{tmp_path}/b'"]


@pytest.mark.slow
def test_prepare_and_preview_with_odd_names_as_typed(tmp_path):
    root = tmp_path / "it's [José], 照片 #1"
    root.mkdir()
    for number in range(12):
        Image.fromarray(photo(96, 96, seed=number)).save(root / f"{number}.png")
    data = f"data_dir={tmp_path / 'data'}"
    done = run_restora("prepare", "data=folder", f"data.source.root={root}", data)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    sheet = root / "出, 1.png"
    done = run_restora("preview", "degradation=jpeg", root / "0.png", f"output={sheet}", "size=32", "draws=1")
    assert done.returncode == 0, done.stderr
    assert sheet.is_file()


@pytest.mark.slow
def test_a_closed_pipe_and_a_text_file_end_quietly(tmp_path):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for words in ("preview --help", "evaluate --help"):
        shell = f"{shell_words()} {words} | head -1"
        done = subprocess.run(
            ["bash", "-c", shell], capture_output=True, text=True, env=environment, check=False
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert "BrokenPipe" not in done.stderr
    run = write_run(tmp_path / "job")
    (tmp_path / "notaphoto.png").write_text("summer")
    done = run_restora("export", run, tmp_path / "m", "--no-onnx", "--photos", tmp_path / "notaphoto.png")
    assert done.returncode == 2
    assert "notaphoto.png: is not a photo in a known format" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_total_has_the_files_that_were_refused(
    identity: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (24, 24)).save(tmp_path / "photos" / "good.png")
    whole = (tmp_path / "photos" / "good.png").read_bytes()
    (tmp_path / "photos" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "photos" / "empty.png").touch()
    assert main(["restore", str(identity), str(tmp_path / "photos"), str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    assert "restored 1 of 3 photos" in said.out
    assert "2 were not restored" in said.err


def test_prepare_names_what_it_leaves_out_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(12):
        Image.new("RGB", (128, 128)).save(tmp_path / "photos" / f"{number}.png")
    (tmp_path / "photos" / "text.png").write_text("no photo")
    words = ["data=folder", f"data.source.root={tmp_path / 'photos'}", f"data_dir={tmp_path / 'data'}"]
    assert main(["prepare", *words]) == 1
    said = capsys.readouterr()
    assert (said.out + said.err + caplog.text).count("text.png") == 1
