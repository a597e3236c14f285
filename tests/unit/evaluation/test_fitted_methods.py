"""Methods that are fitted to each photo face the observations of classical filters, from the command to the
table."""

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from restora.apps.evaluate import main
from restora.apps.restore import main as restore
from restora.evaluation.benchmarks.deblur import Deblur
from restora.evaluation.benchmarks.denoise import Denoise
from restora.evaluation.benchmarks.jpeg import Jpeg
from restora.evaluation.benchmarks.super_resolution import SuperResolution
from restora.evaluation.classical import jpeg_sigma
from restora.evaluation.methods import FittedMethod, problem_of
from restora.evaluation.results import read_result
from restora.evaluation.run import evaluate
from restora.evaluation.tables import notes
from restora.fitting.base import Fit, Problem, Step
from restora.fitting.zs_n2n import ZeroShotNoise2Noise
from restora.operators.blur import MirroredBlur
from restora.operators.pointwise import Identity, bayer
from restora.operators.resizing import Bicubic


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    for number in range(2):
        pixels = np.ascontiguousarray(data.astronaut()[20 + number : 60, 180:220])
        Image.fromarray(pixels).save(root / f"{number}.png")
    return root


class Returned(Fit):
    """Gives back what it was given, and remembers it."""

    name: ClassVar[str] = "returned"
    tasks: ClassVar[tuple[str, ...]] = ("denoise",)

    def __init__(self) -> None:
        self.seen: list[Problem] = []

    def __call__(self, problem: Problem, *, seed: int, device: torch.device) -> Iterator[Step]:
        self.seen.append(problem)
        yield Step(1, 1, problem.operator.start(problem.degraded), 0.0)


def test_a_method_that_does_nothing_is_the_input(folder: Path) -> None:
    fit = Returned()
    benchmark = Denoise(root=str(folder), color="rgb", sigma=25.0)
    result = evaluate(FittedMethod("returned", fit), benchmark)
    for row in result.rows:
        assert row["psnr"] == row["input_psnr"]
    assert [problem.sigma for problem in fit.seen] == [25, 25]


def test_the_problem_is_what_the_observation_carries(folder: Path) -> None:
    cases: list[tuple[Any, type, float | None]] = [
        (Deblur(root=str(folder), color="rgb", width=1.6, sigma=2.0), MirroredBlur, 2.0),
        (SuperResolution(root=str(folder), color="rgb", scale=2), Bicubic, None),
        (Jpeg(root=str(folder), color="rgb", quality=10), Identity, jpeg_sigma(10)),
    ]
    for benchmark, operator, sigma in cases:
        observation = benchmark.observe(0, FittedMethod("", Returned()).intake)
        problem = problem_of(observation)
        assert isinstance(problem.operator, operator)
        assert problem.sigma == sigma
        explained = problem.operator.A(observation.clean)
        close = 0.08 if operator is Identity else 0.011 if operator is MirroredBlur else 0.0021
        assert (explained - observation.degraded).square().mean().sqrt() < close


def test_the_figures_say_which_photos_were_cut_short(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["method=zs_n2n", "benchmark=denoise", f"benchmark.root={folder}", f"output={tmp_path}/scores"]
    words += ["max_time=0.001s", "classical=median"]
    assert main([*words, "benchmark.sigma=25"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    remark = "stopped by the time limit after 1 of 1,000 steps"
    assert f"zs_n2n: 2 of 2 photos cut short, 0: {remark}" in said
    kept = read_result(tmp_path / "scores" / "zs_n2n")
    assert [row["cut_short"] for row in kept.rows] == [remark, remark]
    assert read_result(tmp_path / "scores" / "median").cut_short == []
    assert main([*words, "severities=15,25", "benchmark.limit=1"]) == 0
    assert f"zs_n2n at sigma 15: 1 of 1 photo cut short, 0: {remark}" in " ".join(
        capsys.readouterr().out.split()
    )


class Diverging(Returned):
    """Its second step is not finite."""

    def __call__(self, problem: Problem, *, seed: int, device: torch.device) -> Iterator[Step]:
        yield Step(1, 2, problem.degraded, 0.0)
        yield Step(2, 2, problem.degraded, float("nan"))


def test_a_fit_that_was_not_finite_is_said(folder: Path) -> None:
    benchmark = Denoise(root=str(folder), color="rgb", sigma=25.0, limit=1)
    result = evaluate(FittedMethod("diverging", Diverging()), benchmark)
    (line,) = notes([result])
    assert "stopped after 1 of 2 steps, as the next was not finite: lower learning_rate" in line
    assert result.summary()["cut_short"] == 1


def test_it_is_sent_to_other_processes() -> None:
    method = FittedMethod("zs_n2n", ZeroShotNoise2Noise(steps=3), on_step=lambda at: None)
    sent = pickle.loads(pickle.dumps(method))
    assert (sent.fit.steps, sent.on_step) == (3, None)


def test_the_command_writes_its_row(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["method=zs_n2n", "method.steps=4", "benchmark=denoise", "benchmark.sigma=25", "seed=3"]
    words += [f"benchmark.root={folder}", f"output={tmp_path}/scores", "classical=median", "max_time=1min"]
    assert main([*words, "benchmark.limit=1"]) == 0
    assert "zs_n2n" in capsys.readouterr().out
    summary = json.loads((tmp_path / "scores" / "zs_n2n" / "summary.json").read_text())
    assert summary["method"]["seed"] == 3
    assert summary["method"]["settings"]["steps"] == 4
    other = json.loads((tmp_path / "scores" / "median" / "summary.json").read_text())
    assert summary["input"] == other["input"]


def test_progress_is_beside_the_table(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("restora.data.progress._LINE_SECONDS", 0.0)
    words = ["classical=median", "benchmark=denoise", "benchmark.sigma=25", f"benchmark.root={folder}"]
    assert main([*words, f"output={tmp_path}/scores", "processes=1"]) == 0
    said = capsys.readouterr()
    assert said.err.splitlines() == ["median · 1 of 2", "median · 2 of 2"]
    assert said.out.startswith("folder, denoise, sigma 25, rgb: 2 photos\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["method=pnp_hqs"], "needs a denoiser: set denoiser=SOURCE"),
        (["method=pnp_hqs", "method.denoiser=nowhere"], "there is no nowhere"),
        (["method=zs_n2n", "method.steps=0"], "steps must be 1 or more"),
        (["method=zs_n2n", "method.step=1"], "method.step"),
        (["method=zs"], "method=zs"),
        (["classical=median", "seed=1"], "set method=NAME"),
        (["classical=median", "self_ensemble=true"], "self_ensemble= is for a network: set weights="),
        (["method=zs_n2n", "precision=bf16"], "precision= is for a network"),
        (["model=zoo:denoise_gray", "overlap=32"], "overlap= is of tiles"),
    ],
)
def test_what_cannot_be_done_is_said_first(words: list[str], said: str, folder: Path) -> None:
    rest = ["benchmark=denoise", "benchmark.sigma=25", f"benchmark.root={folder}"]
    with pytest.raises(ValueError, match=said):
        main([*words, *rest])


def test_a_mosaic_becomes_a_photo(tmp_path: Path) -> None:
    clean = torch.from_numpy(np.ascontiguousarray(data.astronaut()[20:60, 180:224]))
    read = (clean * bayer(40, 44, "BGGR")[0].permute(1, 2, 0)).sum(-1)
    Image.fromarray(read.numpy().astype(np.uint8)).save(tmp_path / "raw.png")
    method = [
        "method:pnp_hqs",
        str(tmp_path / "raw.png"),
        str(tmp_path / "out.png"),
        "--denoiser",
        "gaussian",
    ]
    errors = {}
    for pattern in ("BGGR", "RGGB"):
        assert restore([*method, "--mosaic", pattern, "--set", "steps=4", "--overwrite"]) == 0
        restored = np.asarray(Image.open(tmp_path / "out.png")).astype(float)
        assert restored.shape == (40, 44, 3)
        errors[pattern] = float(np.square(restored - clean.numpy()).mean() ** 0.5)
    assert errors["BGGR"] < 14
    assert errors["RGGB"] > 3 * errors["BGGR"]  # of another sensor
    for words, said in (
        ([*method, "--mosaic", "RGB"], "--mosaic RGB: a Bayer pattern must be"),
        ([*method, "--mosaic", "RGGB", "--kernel", "gaussian:1"], "no method combines --mosaic"),
        (["method:zs_n2n", *method[1:3], "--mosaic", "RGGB"], "leave --mosaic out"),
    ):
        with pytest.raises(ValueError, match=said):
            restore([*words, "--overwrite"])


def test_restoring_says_that_the_time_limit_ended_it(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["method:zs_n2n", str(folder / "0.png"), str(tmp_path / "out.png")]
    assert restore([*words, "--max-time", "0.001s"]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "0.png: stopped by the time limit after 1 of 1,000 steps; so early it may be worse" in said


def test_restoring_fills_in_keeps_depth_and_says_what_does_not_fit(folder: Path, tmp_path: Path) -> None:
    photo = np.zeros((20, 24), np.uint16) + 40000
    Image.fromarray(photo).save(tmp_path / "a.png")
    lost = np.zeros((20, 24), np.uint8)
    lost[5:9, 8:12] = 255
    Image.fromarray(lost).save(tmp_path / "lost.png")
    words = [str(tmp_path / "a.png"), str(tmp_path / "out.png")]
    method = ["method:pnp_hqs", *words, "--denoiser", "gaussian", "--set", "steps=3", "--sigma", "0"]
    assert restore([*method, "--mask", str(tmp_path / "lost.png")]) == 0
    restored = np.asarray(Image.open(tmp_path / "out.png"))
    assert restored.dtype == np.uint16
    assert np.abs(restored.astype(int) - 40000).max() < 300
    for wrong, said in (
        (["method:zs_n2n", *words, "--scale", "2"], "zs_n2n is for denoise: leave --scale"),
        (["method:zs_n2n", *words, "--denoiser", "x"], "uses no denoiser"),
        (["method:zs_n2n", *words, "--sigma", "25"], "does not use the noise level"),
        (["method:zs_n2n", *words, "--set", "crop=1"], "crop must be 4 pixels"),
        (["method:dip", *words, "--denoiser", "gaussian"], "no effect with red_weight=0"),
        (["method:dip", *words, "--scale", "2", "--sigma", "9"], "for super-resolution, leave it out"),
        (["method:zssr", *words, "--set", "noise=-3"], "noise must be 0 or more"),
        (
            ["method:pnp_hqs", *words, "--denoiser", "gaussian", "--scale", "2", "--sigma", "auto"],
            "give --sigma LEVEL",
        ),
        (["method:zssr", *words, "--scale", "1"], "say what is wrong"),
        (["method:dip", *words, "--set", "steps"], "KEY=VALUE"),
        (["method:dip", *words, "--set", "steps=[1"], r"--set steps=\[1: the value cannot be read"),
        (["method:dip", *words, "--scale", "0"], "--scale 0: expected a whole number of 1 or more"),
        (["method:dip", *words, "--seed", str(2**63)], "at most 64 bits"),
        (["method:dip", *words, "--kernel", "nowhere.png"], "no such picture"),
        (["method:dip", *words, "--tile", "0"], "--tile works with models only"),
        (["method:dip", *words, "--precision", "bf16"], "--precision works with models only"),
        (["method:dip", *words, "--engine", "openvino"], "--engine works with models only"),
        (["method:dip", *words, "--global-statistics"], "--global-statistics works with models only"),
        (["method:dip", *words, "--task", "denoise"], "--task works with models only"),
        (["zoo:denoise_gray", *words, "--tile", "0", "--overlap", "32"], "leave one out"),
        (["zoo:denoise_gray", *words, "--task", "jpeg"], "states its task, denoise: leave out --task jpeg"),
        (["model", *words, "--seed", "1"], "--seed works with methods"),
    ):
        with pytest.raises(ValueError, match=said):
            restore([*wrong, "--overwrite"])


def test_a_fit_that_breaks_down_is_written_and_named(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its learning rate is written as in a configuration."""
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(12, 16)).save(tmp_path / "a.png")
    words = ["method:zs_n2n", str(tmp_path / "a.png"), str(tmp_path / "out.png"), "--set", "steps=3"]
    assert restore([*words, "--set", "learning_rate=1e8"]) == 0
    said = " ".join("".join(capsys.readouterr()).split())
    assert "a.png: stopped after 1 of 3 steps, as the next was not finite: lower learning_rate" in said
    assert (tmp_path / "out.png").exists()
    assert restore([*words, "--set", "learning_rate=1e-3", "--overwrite"]) == 0
