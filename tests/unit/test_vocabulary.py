"""Words of the command line mean the same in every command."""

import datetime
import json

import pytest
import torch

from restora import vocabulary
from restora.artifact import restorer
from restora.artifact.restorer import Restorer
from restora.cli import main
from restora.networks.dncnn import DnCNN


@pytest.mark.parametrize(
    ("word", "name", "trainers"),
    [
        ("float32", "float32", "32-true"),
        (32, "float32", "32-true"),
        ("32-true", "float32", "32-true"),
        ("bf16", "bfloat16", "bf16-mixed"),
        ("bfloat16", "bfloat16", "bf16-mixed"),
        ("bf16-mixed", "bfloat16", "bf16-mixed"),
        ("float16", "float16", "16-mixed"),
        ("fp16", "float16", "16-mixed"),
        (16, "float16", "16-mixed"),
    ],
)
def test_precisions(word: object, name: str, trainers: str) -> None:
    assert vocabulary.precision(word, "cpu") == name
    assert vocabulary.trainer_precision(word, "cpu") == trainers


def test_other_precisions_are_refused() -> None:
    with pytest.raises(ValueError, match="precision=64-true: expected one of float32"):
        vocabulary.trainer_precision("64-true", "cpu")
    with pytest.raises(ValueError, match="precision=bf17: expected one of float32"):
        vocabulary.precision("bf17", "cpu")


def _processor(monkeypatch: pytest.MonkeyPatch, *, bf16: bool = False, amx: bool = False) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(vocabulary.platform, "machine", lambda: "x86_64")


@pytest.mark.parametrize(
    ("units", "name"), [({}, "float32"), ({"bf16": True}, "bfloat16"), ({"amx": True}, "bfloat16")], ids=str
)
def test_auto_is_bfloat16_where_the_processor_multiplies_in_it(
    units: dict[str, bool], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _processor(monkeypatch, **units)
    assert vocabulary.precision("auto", "cpu") == name
    assert (
        vocabulary.trainer_precision("auto", "cpu") == {"float32": "32-true", "bfloat16": "bf16-mixed"}[name]
    )


def test_auto_on_a_gpu_asks_for_its_own_units_not_for_emulated_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    _processor(monkeypatch, amx=True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for own in (True, False):
        monkeypatch.setattr(
            torch.cuda,
            "is_bf16_supported",
            lambda including_emulation=True, own=own: including_emulation or own,
        )
        for device in ("cuda", "gpu"):
            assert vocabulary.precision("auto", device) == ("bfloat16" if own else "float32")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert vocabulary.precision("auto", "gpu") == vocabulary.precision("auto", "mps") == "float32"


def test_bfloat16_is_said_to_be_slow_only_where_it_is_known_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    _processor(monkeypatch)
    for name in ("bfloat16", "float16"):
        assert f"no instructions for {name}" in vocabulary.slow_precision(name, "cpu")
    assert vocabulary.slow_precision("float32", "cpu") == vocabulary.slow_precision("bfloat16", "cuda") == ""
    monkeypatch.setattr(vocabulary.platform, "machine", lambda: "arm64")
    assert vocabulary.slow_precision("bfloat16", "cpu") == ""
    _processor(monkeypatch, bf16=True)
    assert vocabulary.slow_precision("bfloat16", "cpu") == ""


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("90s", 90),
        ("0.5s", 0.5),
        ("2min", 120),
        ("2 min", 120),
        ("1h30min", 5400),
        ("3d", 259200),
        ("00:02:00", 120),
        ("01:00:01:00", 86460),
        ({"minutes": 2}, 120),
        ({"hours": 1, "seconds": 1}, 3601),
        (datetime.timedelta(minutes=1), 60),
        (None, None),
    ],
    ids=str,
)
def test_durations(written: object, seconds: float | None) -> None:
    assert vocabulary.seconds(written, "key") == seconds


@pytest.mark.parametrize("written", ["", "2", 120, "2m", "soon", "0s", "1:2", {"fortnights": 2}, {}, True])
def test_what_is_no_duration_is_refused_with_the_form(written: object) -> None:
    with pytest.raises(ValueError, match="write it as 90s, 2min"):
        vocabulary.seconds(written, "key")


@pytest.mark.parametrize("seconds", [0.25, 1, 75, 3600, 5400, 86461])
def test_durations_are_written_as_they_are_read(seconds: float) -> None:
    assert vocabulary.seconds(vocabulary.duration(seconds), "key") == seconds


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.123, "0.12 s"), (4.14, "4.1 s"), (75, "75 s"), (720, "12 min"), (27000, "7.5 h"), (4e6, "46 days")],
)
def test_durations_are_said_with_two_digits(seconds: float, said: str) -> None:
    assert vocabulary.about(seconds) == said


def test_tiles() -> None:
    assert [vocabulary.tile(value, default=1088) for value in (None, 0, 512)] == [1088, 0, 512]
    for wrong in (-1, "big", True):
        with pytest.raises(ValueError, match="0 for the photo in one piece"):
            vocabulary.tile(wrong, default=0)


def test_threads() -> None:
    before = torch.get_num_threads()
    try:
        vocabulary.use_threads(2)
        assert torch.get_num_threads() == 2
        vocabulary.use_threads(None)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    for wrong in (0, "many", True):
        with pytest.raises(ValueError, match="threads="):
            vocabulary.use_threads(wrong)


@pytest.mark.parametrize("word", ["bf16", "bfloat16", "bf16-mixed"])
def test_the_restorer_takes_the_same_words(word: str) -> None:
    network = DnCNN(in_channels=1, depth=3, channels=4, batch_norm=False)
    assert Restorer(network=network, precision=word).precision == "bfloat16"


def test_a_restorer_in_slow_bfloat16_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _processor(monkeypatch)
    restorer._warn_once.cache_clear()
    network = DnCNN(in_channels=1, depth=3, channels=4, batch_norm=False)
    for precision in ("auto", "float32", "bf16", "bf16"):
        made = Restorer(network=network, device="cpu", precision=precision)
        assert made.precision == ("bfloat16" if precision == "bf16" else "float32")
    assert caplog.text.count("no instructions for bfloat16") == 1


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["evaluate", "classical=bm3d", "benchmark=denoise", "threads=0"], "threads=0"),
        (["evaluate", "classical=bm3d", "benchmark=denoise", "precison=bf16"], "Did you mean precision"),
        (["networks", "dncnn", "--threads", "0"], "threads=0"),
        (["bench", "threads=0"], "threads=0"),
        (["bench", "precision=bf17"], "precision=bf17"),
        (["train", "precision=bf17"], "precision=bf17"),
        (["train", "threads=0"], "threads=0"),
    ],
    ids=str,
)
@pytest.mark.slow
def test_every_command_reads_them(
    command: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    extra = [f"benchmark.root={tmp_path}", "benchmark.sigma=25", "benchmark.color=gray"]
    assert main([*command, *(extra if command[0] == "evaluate" else [])]) == 2
    assert said in capsys.readouterr().err


def test_evaluate_computes_with_the_threads_it_is_given(tmp_path, monkeypatch) -> None:
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    Image.effect_noise((48, 48), 40).save(tmp_path / "photos" / "a.png")
    before = torch.get_num_threads()
    what = [
        "evaluate",
        "classical=nl_means",
        "benchmark=denoise",
        "benchmark.sigma=25",
        "benchmark.color=gray",
    ]
    try:
        answer = main([*what, "benchmark.root=photos", "threads=2", "processes=1", "output=figures"])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert answer == 0
    assert json.loads((tmp_path / "figures" / "summary.json").read_text())["images"] == 1
