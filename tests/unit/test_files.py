"""Files are written whole or not at all, and JSON is strict."""

import io
import json
import math
import os
import re
import subprocess
import sys

import pytest
import torch

from restora.files import (
    check_archive,
    check_writable,
    is_running,
    json_text,
    read_json,
    write_json,
    write_whole,
    written_whole,
)


def test_text_and_bytes_arrive_as_they_are(tmp_path):
    write_whole(tmp_path / "new" / "a.txt", "ä\r\n")
    assert (tmp_path / "new" / "a.txt").read_bytes() == "ä\r\n".encode()
    write_whole(tmp_path / "new" / "a.txt", b"other")
    assert [path.read_bytes() for path in (tmp_path / "new").iterdir()] == [b"other"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def fail(self, target):
        raise OSError("no space left")

    monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(OSError, match="no space"):
        write_whole(path, b"new")
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]
    assert path.read_bytes() == b"old"


def test_a_process_that_was_killed_and_not_yet_waited_for_does_not_run():
    child = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
    assert is_running(child.pid)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and is a zombie
    assert not is_running(child.pid)
    child.communicate()
    assert not is_running(child.pid)


def test_a_place_that_cannot_be_written_is_refused_and_nothing_is_left_there(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("kept")
    (tmp_path / "nowhere").symlink_to("absent")
    for path, folder, words in (
        (tmp_path, False, "--output: .* is a folder; name a file"),
        (tmp_path / "file", True, "file is a file; name a folder"),
        (tmp_path / "file" / "new" / "a.png", False, "file is a file; name another file"),
        (tmp_path / "nowhere" / "a.png", False, "nowhere is a link to nowhere"),
        (tmp_path / ("n" * 256) / "a", False, "longer than 255 bytes"),
    ):
        with pytest.raises(ValueError, match=words):
            check_writable(path, setting="--output", folder=folder)
    check_writable(tmp_path / "new" / "deeper" / "a.png", setting="--output")
    check_writable(tmp_path, setting="--output", folder=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "nowhere"]

    def fail(dir):
        raise PermissionError(13, "Permission denied", dir)

    monkeypatch.setattr("tempfile.TemporaryFile", fail)
    with pytest.raises(ValueError, match=r"cannot be written to \(Permission denied\); name another one"):
        check_writable(tmp_path / "new" / "a.png", setting="--output")


def refused(constant: str):
    raise AssertionError(f"{constant} is not JSON")


def test_numbers_that_json_does_not_have_become_null_with_a_word_and_come_back(tmp_path):
    path = tmp_path / "a.json"
    content = {
        "psnr": {"val/psnr": math.nan, "ssim": 0.5},
        "rows": [1, math.inf, [-math.inf, None]],
        "folder": tmp_path,
        "pair": (1, "x"),
        3: True,
    }
    write_json(path, content)
    stored = json.loads(path.read_text(), parse_constant=refused)
    assert stored["psnr"] == {"val/psnr": None, "ssim": 0.5}
    assert stored["rows"] == [1, None, [None, None]]
    assert stored["not_finite"] == {
        "psnr.val/psnr": "NaN",
        "rows.1": "Infinity",
        "rows.2.0": "-Infinity",
    }
    back = read_json(path)
    assert math.isnan(back["psnr"]["val/psnr"])
    assert back["rows"] == [1, math.inf, [-math.inf, None]]
    assert (back["folder"], back["pair"], back["3"]) == (str(tmp_path), [1, "x"], True)
    assert "not_finite" not in back
    write_json(path, back)  # what was read is written again as it was
    assert json.loads(path.read_text())["not_finite"] == stored["not_finite"]


def test_finite_content_has_no_word_about_numbers():
    assert json.loads(json_text({"a": [1.5, None]})) == {"a": [1.5, None]}
    assert json.loads(json_text([math.nan, 1]), parse_constant=refused) == [None, 1]


def test_bare_numbers_of_older_files_are_read(tmp_path):
    (tmp_path / "a.json").write_text('{"a": NaN, "b": [Infinity, -Infinity], "c": null}')
    content = read_json(tmp_path / "a.json")
    assert math.isnan(content["a"])
    assert content["b"] == [math.inf, -math.inf]
    assert content["c"] is None


@pytest.mark.parametrize("value", [{1, 2}, b"x", object(), range(3)], ids=lambda value: type(value).__name__)
def test_what_json_cannot_hold_is_refused_with_its_place(value, tmp_path):
    with pytest.raises(TypeError, match=r"at config\.rows\.1 is not a value of JSON"):
        write_json(tmp_path / "a.json", {"config": {"rows": [0, value]}})
    assert list(tmp_path.iterdir()) == []


def test_only_the_one_writer_makes_json(repository):
    """Every other module goes through it, so that none writes NaN."""
    for folder in ("src", "benchmarks"):
        for path in (repository / folder).rglob("*.py"):
            if path != repository / "src" / "restora" / "files.py":
                assert not re.search(r"\bjson\.dumps?\b|\bfrom json\b|\.to_json\(", path.read_text()), path


@pytest.mark.parametrize("how", ["a bit of a part", "a bit of the list of parts"])
def test_archives_that_are_not_as_they_were_written_are_named(how, tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"weights": torch.arange(1000.0)}, path)
    check_archive(path)
    content = bytearray(path.read_bytes())
    place = content.index(torch.arange(990.0, 1000.0).numpy().tobytes())
    if how == "a bit of a part":
        content[place] ^= 4
        torch.load(io.BytesIO(content), weights_only=True)  # torch does not notice
    else:
        content[content.rindex(b"data/0")] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.pth is damaged"):
        check_archive(path)


def test_what_is_no_archive_is_left_to_its_reader(tmp_path):
    (tmp_path / "a.pth").write_bytes(b"text")
    check_archive(tmp_path / "a.pth")


def test_a_full_disk_is_said_with_the_name_of_the_file(tmp_path):
    path = tmp_path / "a.json"
    with (
        pytest.raises(OSError, match="No space left") as failure,
        written_whole(path),
        open("/dev/full", "wb", buffering=0) as full,
    ):
        full.write(b"x")
    assert failure.value.filename == str(path)
