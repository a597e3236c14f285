"""The command table, its errors, and how fast it answers."""

import os
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from restora import __version__, registry
from restora.cli import COMMANDS, main
from restora.photos.files import read_photo


def test_the_surface_is_what_others_script_against() -> None:
    assert set(COMMANDS) == {
        "prepare",
        "preview",
        "networks",
        "experiments",
        "train",
        "bench",
        "evaluate",
        "sync",
        "report",
        "sweep",
        "zoo",
        "export",
        "restore",
        "serve",
    }


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom restora.cli import main\nmain(['--help'])\n"
        "print([m for m in ('torch', 'hydra', 'lightning', 'numpy') if m in sys.modules])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert answer.stdout.strip().endswith("[]")


@pytest.mark.parametrize("words", ["--help", "experiments --json"])
def test_a_reader_that_stops_ends_it_quietly(words: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "restora", *words.split()]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, timeout=60)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


def test_an_unknown_command_suggests_the_near_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == 2
    assert "Did you mean train?" in capsys.readouterr().err


def test_a_mistake_is_one_message_and_a_traceback_where_it_is_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["export", "/there/is/no/run", "/x"]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith("restora export: ")
    assert len(said.splitlines()) == 1
    monkeypatch.setenv("RESTORA_TRACEBACK", "1")
    with pytest.raises(ValueError, match="/there/is/no/run"):
        main(words)


def test_names_in_files_are_text_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    from restora.cli import leave_control_codes_out

    hostile = "\x1b]0;title\x07a\x1b[2J\x9b31mb"
    assert main(["export", f"/no/{hostile}", "/x"]) == 2
    leave_control_codes_out()
    Console(force_terminal=True, color_system=None).print(hostile, markup=False)
    out, err = capsys.readouterr()
    assert out.startswith("]0;titlea[2J31mb")
    assert not set("\x1b\x07\x9b") & set(out + err)


def test_damaged_metadata_shows_no_line_of_pillows_code(tmp_path: Path) -> None:
    block = Image.Exif()
    block[0x010F] = "Camera"
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", exif=block.tobytes()[:16])
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        assert main(["restore", str(tmp_path / "none.png"), str(tmp_path / "out.png")]) == 2
        read_photo(tmp_path / "a.jpg")
    assert [str(line.message) for line in shown] == []


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert __version__ in capsys.readouterr().out


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_help_in_80_columns(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    try:
        code = main([command, "--help"])
    except SystemExit as stop:  # argparse leaves this way
        code = stop.code
    assert code == 0
    printed = capsys.readouterr().out
    assert "usage" in printed.lower()
    assert [line for line in printed.splitlines() if len(line) > 80] == []


@pytest.mark.parametrize("own", [{}, {"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "PASSIVE"}], ids=str)
def test_waiting_threads_do_not_spin_unless_the_user_has_said_how(
    own: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    from restora.apps.bench import threads_in_words
    from restora.cli import share_busy_cores

    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "RESTORA_SPINCOUNT"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    share_busy_cores()
    assert os.environ.get("GOMP_SPINCOUNT") == own.get("GOMP_SPINCOUNT", None if own else "1000")
    _, waiting = threads_in_words(None)  # as `restora bench` ends
    value = ", ".join(f"{name}={value} (yours)" for name, value in own.items())
    assert waiting == (value or "GOMP_SPINCOUNT=1000 (set by restora)")
    assert threads_in_words(3)[0] == f"{torch.get_num_threads()} (threads=3)"


def test_an_error_in_code_of_the_users_own_is_one_line_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of any type; where the code is developed, by `train`, it stays a traceback."""
    (tmp_path / "lab_of_errors.py").write_text("def main(argv):\n    return {}['weights']\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("export", "train"):
        monkeypatch.setitem(COMMANDS, name, ("lab_of_errors:main", ""))
    with pytest.raises(KeyError):  # not a plugin's
        main(["export"])
    monkeypatch.setattr(registry, "_plugins", ["lab_of_errors"])
    assert main(["export"]) == 2
    said = capsys.readouterr().err
    assert "lab_of_errors.py, line 2, in main: KeyError: 'weights'. If this code has changed" in said
    assert said.count("\n") == 1
    with pytest.raises(KeyError):
        main(["train"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["restore", "--strenth", "1", "a.jpg"],
            "unrecognized arguments: --strenth. Did you mean --strength?",
        ),
        (["export", "--bset", "outputs"], "unrecognized arguments: --bset. Did you mean --best?"),
        (["restore", "--stren", "1", "a.jpg"], "the following arguments are required: OUTPUT."),
    ],
)
def test_a_misspelt_option_is_named_before_names_that_are_missing(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "fix"), [("preview", "smaller photo"), ("restore", "--tile"), ("train", "data.batch_size")]
)
def test_too_little_memory_is_answered_with_what_the_command_can_change(
    command: str, fix: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "lab_of_memory", SimpleNamespace(main=_out_of_memory))
    monkeypatch.setitem(COMMANDS, command, ("lab_of_memory:main", ""))
    assert main([command]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"restora {command}: out of memory: ")
    assert fix in said


def _out_of_memory(words: list[str]) -> int:
    raise MemoryError
