"""From a run folder to restored photos, through the commands a person types."""

import errno
import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from run_folders import ARGUMENTS, photo, tiny_network, write_checkpoint, write_run
from warm_start import run_restora, start_restora

from restora.apps.export import main as export
from restora.apps.restore import main as restore
from restora.apps.restoring import running
from restora.apps.restoring.plan import Job
from restora.apps.restoring.settings import Settings
from restora.artifact.model_folder import load_model_folder
from restora.artifact.photo_pixels import estimated_sigma
from restora.artifact.restorer import Restorer
from restora.networks.dncnn import FDnCNN
from restora.photos.files import read_photo


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "job")


@pytest.fixture(scope="module")
def model(run):
    assert export([str(run), "--no-onnx"]) == 0
    return run / "model"


@pytest.fixture
def photos(tmp_path):
    """A tree of four photos and a file that is none."""
    folder = tmp_path / "photos"
    (folder / "album" / "old").mkdir(parents=True)
    Image.fromarray(photo()).save(folder / "a.png")
    Image.fromarray(photo(seed=1)).save(folder / "b.JPG")
    Image.fromarray(photo(33, 47)).convert("L").save(folder / "album" / "c.tif")
    Image.fromarray(photo(9, 5)).save(folder / "album" / "old" / "d.webp")
    (folder / "album" / "notes.txt").write_text("summer")
    (folder / "._a.png").write_bytes(b"left by another system")
    return folder


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


NAMES = ["a.png", "album/c.tif", "album/old/d.webp", "b.JPG"]


def test_a_tree_of_photos_keeps_names_and_tree_and_is_restored(model, photos, tmp_path):
    assert restore([str(model), str(photos), str(tmp_path / "out"), "--device", "cpu"]) == 0
    assert files(tmp_path / "out") == NAMES
    with Image.open(tmp_path / "out" / "a.png") as image:
        restored = np.asarray(image)
    _, network = load_model_folder(model)
    with torch.no_grad():
        x = torch.from_numpy(photo()).permute(2, 0, 1)[None] / 255
        expected = network(x).clamp(0, 1).mul(255).round()[0].permute(1, 2, 0).numpy()
    assert np.abs(restored - expected).max() <= 1
    assert not np.array_equal(restored, photo())


def test_one_broken_photo_is_named_and_the_rest_goes_on(model, photos, tmp_path, capsys):
    (photos / "album" / "broken.jpg").write_bytes((photos / "b.JPG").read_bytes()[:900])
    (photos / "moving.gif").write_bytes(b"GIF89a")
    assert restore([str(model), str(photos), str(tmp_path / "out")]) == 1
    assert files(tmp_path / "out") == NAMES
    errors = capsys.readouterr().err
    assert "album/broken.jpg: cannot be decoded" in errors
    assert "moving.gif: GIF is not a format that can be written" in errors


def test_exit_code_and_messages_of_the_command(model, photos, tmp_path):
    """In a process of its own: 0, then 1 with a broken photo, then 2 with one message where an argument is
    wrong."""

    def command(*arguments):
        return run_restora("restore", *arguments)

    done = command(model, photos / "a.png", tmp_path / "a.png")
    assert (done.returncode, "restored 1 of 1 photos" in done.stdout) == (0, True)
    (photos / "b.JPG").write_bytes(b"\xff\xd8\xff")
    done = command(model, photos, tmp_path / "out")
    assert (done.returncode, "b.JPG" in done.stderr, "Traceback" in done.stderr) == (1, True, False)
    done = command(tmp_path / "nothing", photos, tmp_path / "out2")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"there is no {tmp_path / 'nothing'}: a model is a model folder, a run folder" in done.stderr


def test_single_photo_into_a_file_or_a_folder(model, photos, tmp_path):
    assert restore([str(model), str(photos / "a.png"), str(tmp_path / "new" / "other.jpg")]) == 0
    assert restore([str(model), str(photos / "a.png"), str(tmp_path / "folder")]) == 0
    with Image.open(tmp_path / "new" / "other.jpg") as image:
        assert (image.format, image.size) == ("JPEG", (84, 60))
    assert files(tmp_path / "folder") == ["a.png"]


def test_a_misspelt_ending_makes_no_folder(model, photos, tmp_path):
    """A folder that is there may be called anything, and so may one of another kind of name."""
    with pytest.raises(ValueError, match=r"\.pgn is not a photo format: name it \*\.jpg"):
        restore([str(model), str(photos / "a.png"), str(tmp_path / "b.pgn")])
    assert not (tmp_path / "b.pgn").exists()
    (tmp_path / "b.pgn").mkdir()
    assert restore([str(model), str(photos / "a.png"), str(tmp_path / "b.pgn")]) == 0
    assert restore([str(model), str(photos / "a.png"), str(tmp_path / "of 2026.11")]) == 0
    assert files(tmp_path / "b.pgn") == files(tmp_path / "of 2026.11") == ["a.png"]


@pytest.mark.parametrize("level", ["999", "-1", "nan", "inf", "much"])
def test_a_noise_level_that_no_photo_has_is_refused(level, model, photos, tmp_path):
    with pytest.raises(ValueError, match=f"expected a number from 0 to 255 or auto, got '{level}'"):
        restore([str(model), str(photos), str(tmp_path / "out"), f"--sigma={level}"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["", "OUT"], "INPUT is empty"),
        (["PHOTO", ""], "OUTPUT is empty"),
        (["PHOTO", "OUT", "--mask", ""], "--mask is empty"),
        (["PHOTO", "PHOTO", "OUT"], r"a\.png is a photo, not a model"),
        (["Photo", "PHOTO", "OUT"], "Did you mean zoo:photo"),
        (["https://example.org/a.jpg", "OUT"], "download it first"),
        (["PHOTO", "OUT", "--strenght", "1"], "Did you mean --strength"),
        (["PHOTO", "OUT", "--format", "gif"], "invalid choice: 'gif'"),
        (["-dash.png", "OUT"], r"write \./-dash\.png"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_in_names_are_answered_in_one_sentence(words, message, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(photos / "a.png", tmp_path / "-dash.png")
    known = {"PHOTO": str(photos / "a.png"), "OUT": str(tmp_path / "out")}
    with pytest.raises(ValueError, match=message):
        restore([known.get(word, word) for word in words])
    assert not (tmp_path / "out").exists()


def test_the_grey_model_is_named_for_photos_without_colour(photos, tmp_path, capsys):
    with Image.open(photos / "a.png") as image:
        image.convert("L").save(tmp_path / "grey.png")
        image.convert("L").convert("RGB").save(tmp_path / "equal.png")
        image.convert("RGB").save(tmp_path / "colour.png")
    for name, said in (("grey", True), ("equal", True), ("colour", False)):
        words = [str(tmp_path / f"{name}.png"), str(tmp_path / f"{name}_out.png"), "--sigma", "20"]
        assert restore(["zoo:denoise", *words]) == 0
        assert ("1 photo without colour: zoo:denoise_gray" in capsys.readouterr().out) == said


def test_what_follows_two_dashes_are_names(model, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(photos / "a.png", tmp_path / "-dash.png")
    assert restore([str(model), "--", "-dash.png", "-out.png"]) == 0
    assert (tmp_path / "-out.png").is_file()


def test_only_a_folder_is_watched(model, photos, tmp_path, capsys):
    with pytest.raises(ValueError, match="--watch needs a folder as INPUT"):
        restore([str(model), "--watch", str(photos / "a.png"), str(tmp_path / "out")])
    assert "watching" not in capsys.readouterr().out


def test_existing_outputs_are_replaced_or_skipped_as_asked(model, photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert restore([str(model), str(photos), str(out)]) == 0
    (out / "a.png").write_bytes(b"mine")
    with pytest.raises(ValueError, match=r"exists \(and 3 more\).*--overwrite"):
        restore([str(model), str(photos), str(out)])
    (out / "b.JPG").unlink()
    assert restore([str(model), str(photos), str(out), "--skip-existing"]) == 0
    assert f"3 photos skipped: {out} has them already" in capsys.readouterr().out
    assert (out / "a.png").read_bytes() == b"mine"
    assert (out / "b.JPG").is_file()
    assert restore([str(model), str(photos), str(out), "--skip-existing"]) == 0
    assert restore([str(model), str(photos), str(out), "--overwrite"]) == 0
    assert (out / "a.png").read_bytes() != b"mine"


@pytest.mark.parametrize("output", [".", "../photos", "a.png"])
def test_inputs_are_never_overwritten(model, photos, output):
    source = photos if output != "a.png" else photos / "a.png"
    before = {name: (photos / name).read_bytes() for name in files(photos)}
    with pytest.raises(ValueError, match="would be overwritten"):
        restore([str(model), str(source), str(photos / output), "--overwrite"])
    assert before == {name: (photos / name).read_bytes() for name in files(photos)}


def test_outputs_inside_the_input_folder_are_not_restored_again(model, photos):
    for _ in range(2):
        assert restore([str(model), str(photos), str(photos / "restored"), "--overwrite"]) == 0
    assert files(photos / "restored") == NAMES


@pytest.mark.parametrize(
    ("source", "message"),
    [("nowhere", "no photo, video or folder"), ("album/notes.txt", None), ("empty", "no photos")],
)
def test_inputs_without_photos_are_named(model, photos, tmp_path, source, message, capsys):
    (photos / "empty").mkdir()
    arguments = [str(model), str(photos / source), str(tmp_path / "out")]
    if message is None:
        assert restore(arguments) == 1
        assert "notes.txt: .txt is not a format" in capsys.readouterr().err
    else:
        with pytest.raises(ValueError, match=message):
            restore(arguments)


def test_tiles_make_no_visible_difference(model, photos, tmp_path):
    for name, options in (("whole", ["--tile", "0"]), ("tiled", ["--tile", "40", "--overlap", "20"])):
        assert restore([str(model), str(photos / "a.png"), str(tmp_path / name), *options]) == 0
    whole, tiled = (
        np.asarray(Image.open(tmp_path / name / "a.png"), dtype=int) for name in ("whole", "tiled")
    )
    assert np.abs(whole - tiled).max() <= 1


@pytest.mark.parametrize("level", [25, [0, 55]])
def test_noise_level_comes_from_the_user_or_the_training(level, photos, tmp_path, run):
    torch.manual_seed(0)
    network = FDnCNN(**{**ARGUMENTS, "depth": 4})
    checkpoint = write_checkpoint(
        tmp_path / "fdncnn.ckpt",
        network,
        network={"name": "fdncnn", "arguments": ARGUMENTS},
        degradation={"_target_": "gaussian_noise", "sigma": level},
    )
    model = tmp_path / "fdncnn"
    assert export([str(checkpoint), str(model), "--no-onnx"]) == 0
    source = str(photos / "a.png")
    if level == 25:
        assert restore([str(model), source, str(tmp_path / "default")]) == 0
    else:
        with pytest.raises(ValueError, match="give --sigma LEVEL"):
            restore([str(model), source, str(tmp_path / "default")])
    for sigma in ("25", "50"):
        assert restore([str(model), source, str(tmp_path / sigma), "--sigma", sigma]) == 0
    restored = {sigma: (tmp_path / sigma / "a.png").read_bytes() for sigma in ("25", "50")}
    assert restored["25"] != restored["50"]
    if level == 25:
        assert (tmp_path / "default" / "a.png").read_bytes() == restored["25"]
    assert "--sigma 25" in (model / "README.md").read_text() or level == 25


def test_a_mask_for_a_model_that_takes_none_is_refused(model, photos, tmp_path):
    with pytest.raises(ValueError, match="not conditioned on a mask"):
        restore([str(model), str(photos), str(tmp_path / "out"), "--mask", str(photos)])


def test_a_noise_level_for_a_model_that_takes_none_is_refused(model, photos, tmp_path):
    with pytest.raises(ValueError, match="not conditioned on a noise level"):
        restore([str(model), str(photos), str(tmp_path / "out"), "--sigma", "25"])


def test_the_best_run_of_a_sweep_is_exported(tmp_path, capsys):
    write_run(tmp_path / "sweep" / "0_a", psnr=27.0)
    write_run(tmp_path / "sweep" / "1_b", psnr=29.0, seed=1)
    assert export(["--best", str(tmp_path / "sweep"), str(tmp_path / "model"), "--no-onnx"]) == 0
    output = capsys.readouterr().out
    assert "1_b (28.80 dB)" in output
    assert "\n safetensors  " in output
    _, network = load_model_folder(tmp_path / "model")
    assert torch.equal(network.state_dict()["model.0.weight"], tiny_network(1).state_dict()["model.0.weight"])


def test_export_that_fails_its_check_exits_with_1(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("restora.artifact.parity.TOLERANCE", 0.0)
    assert export([str(run), str(tmp_path / "model"), "--no-onnx"]) == 1
    assert "nothing was written" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


def test_export_checks_on_the_photos_it_is_given(run, tmp_path):
    Image.fromarray(photo(31, 45)).save(tmp_path / "mine.png")
    assert (
        export([str(run), str(tmp_path / "model"), "--no-onnx", "--photos", str(tmp_path / "mine.png")]) == 0
    )
    parity = json.loads((tmp_path / "model" / "model.json").read_text())["parity"]
    names = [checked["name"] for checked in parity["photos"]]
    own = ["astronaut_degraded.png", "coffee_degraded.png"]
    assert names == [*own, "mine.png", own[0]]  # beside the run's own, of which one is looked at cut odd
    assert (parity["photos"][2]["height"], parity["photos"][2]["width"]) == (31, 45)


@pytest.mark.parametrize("arguments", [[], ["--best", "a", "b", "c"]])
def test_export_without_a_source_explains_itself(arguments, capsys):
    with pytest.raises(ValueError, match="`restora export --help` lists the options"):
        export(arguments)


def test_an_estimated_noise_level_is_shown_and_used(tmp_path, capsys):
    torch.manual_seed(0)
    checkpoint = write_checkpoint(
        tmp_path / "level.ckpt",
        FDnCNN(**ARGUMENTS),
        network={"name": "fdncnn", "arguments": ARGUMENTS},
        degradation={"_target_": "gaussian_noise", "sigma": {"_target_": "uniform", "low": 0, "high": 50}},
    )
    noise = np.random.default_rng(0).normal(0, 20, (96, 96, 3))
    Image.fromarray((128 + noise).round().astype(np.uint8)).save(tmp_path / "a.png")
    out = tmp_path / "out.png"
    assert restore([str(checkpoint), str(tmp_path / "a.png"), str(out), "--sigma", "auto"]) == 0
    shown = float(capsys.readouterr().err.split("noise level ")[1].split()[0])
    assert shown == pytest.approx(20, abs=1)
    by_number = ["--sigma", str(estimated_sigma(read_photo(tmp_path / "a.png")))]
    assert restore([str(checkpoint), str(tmp_path / "a.png"), str(tmp_path / "same.png"), *by_number]) == 0
    assert out.read_bytes() == (tmp_path / "same.png").read_bytes()


def test_two_workers_give_what_one_gives(model, photos, tmp_path):
    for name, device in (("one", "cpu"), ("two", "cpu,cpu")):
        assert restore([str(model), str(photos), str(tmp_path / name), "--device", device]) == 0
    assert files(tmp_path / "two") == NAMES
    for name in NAMES:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_two_devices_both_work(model, photos, tmp_path, monkeypatch):
    """Neither photo is done before both have begun."""
    both, own = threading.Barrier(2, timeout=30), set()
    call = Restorer.__call__

    def met(self, *arguments, **options):
        own.add(id(self))
        both.wait()
        return call(self, *arguments, **options)

    monkeypatch.setattr(Restorer, "__call__", met)
    assert restore([str(model), str(photos), str(tmp_path / "out"), "--device", "cpu,cpu"]) == 0
    assert len(own) == 2


def test_small_photos_of_one_size_go_together(model, tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    for number in range(5):
        Image.fromarray(photo(seed=number)).save(tmp_path / "in" / f"{number}.png")
    Image.fromarray(photo(40, 84)).save(tmp_path / "in" / "5.png")
    assert restore([str(model), str(tmp_path / "in"), str(tmp_path / "alone")]) == 0
    counts, call = [], Restorer.__call__

    def counted(self, x, *arguments, **options):
        counts.append(len(x))
        return call(self, x, *arguments, **options)

    monkeypatch.setattr(Restorer, "__call__", counted)
    monkeypatch.setattr(Restorer, "together", lambda self, height, width: 3)
    assert restore([str(model), str(tmp_path / "in"), str(tmp_path / "together")]) == 0
    assert counts == [3, 2, 1]
    for name in files(tmp_path / "alone"):
        one, other = (np.asarray(Image.open(tmp_path / where / name)) for where in ("alone", "together"))
        assert np.abs(one.astype(int) - other).max() <= 1


def test_the_time_left_is_that_of_the_megapixels_left():
    """Of a small photo that is done and a large one of which a third is: four of ten megapixels."""
    jobs = [Job(Path(n), Path(n), n, megapixels=m) for n, m in (("small", 1.0), ("large", 9.0))]
    work = running._Work(jobs, [None], Settings())
    task = work.bar.tasks[0]
    work.advance(jobs[:1])
    assert (task.completed, task.total, task.fields["count"]) == (1.0, 10.0, "1/2 photos")
    work._progress(jobs[1:])(1, 3)
    assert task.completed == pytest.approx(4.0)


def test_watching_restores_whole_files_and_goes_on_after_a_restart(model, photos, tmp_path):
    """In processes that are killed."""
    whole = (photos / "a.png").read_bytes()
    watched, out = tmp_path / "watched", tmp_path / "out"
    watched.mkdir()
    command = ["restore", model, "--watch", watched, out]

    def until(name):
        for _ in range(2400):
            if (out / name).exists():
                return
            time.sleep(0.05)
        pytest.fail(f"{name} was not restored")

    process = start_restora(*command, "--skip-existing")
    try:
        (watched / "half.png").write_bytes(whole[: len(whole) // 2])
        (watched / "a.png").write_bytes(whole)
        until("a.png")
        (watched / "half.png").write_bytes(whole)
        until("half.png")
    finally:
        process.kill()
    first = (out / "a.png").stat().st_mtime_ns
    (watched / "b.png").write_bytes(whole)
    process = start_restora(*command)
    try:
        until("b.png")
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, "stopped watching" in said) == (0, True)
    assert (out / "a.png").stat().st_mtime_ns == first
    assert files(out) == ["a.png", "b.png", "half.png"]


def test_a_full_disk_is_named_with_the_file_that_is_missing(model, photos, tmp_path, monkeypatch, capsys):
    def full(path, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("restora.apps.restoring.running.write_whole", full)
    out = tmp_path / "out" / "a.png"
    assert restore([str(model), str(photos / "a.png"), str(out)]) == 1
    assert f"a.png: {out} cannot be written: No space left on device" in capsys.readouterr().err


def test_a_full_disk_ends_the_work(model, tmp_path, monkeypatch, capsys):
    """Each further photo would be restored for nothing."""
    (tmp_path / "in").mkdir()
    for number in range(20):
        Image.fromarray(photo(8, 8)).save(tmp_path / "in" / f"{number:02}.png")
    written = []

    def full_after_three(path, data):
        if len(written) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(path)

    monkeypatch.setattr(running, "write_whole", full_after_three)
    monkeypatch.setattr(running, "FILES_IN_FLIGHT", 1)
    assert restore([str(model), str(tmp_path / "in"), str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    assert "restored 3 of 20 photos" in said.out
    failed = said.err.count("No space left on device")
    assert 1 <= failed < 10
    assert f"nothing more can be written: {20 - 3 - failed} photos left" in said.out
