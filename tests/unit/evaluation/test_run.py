"""Scoring: the same figures on one process and on two, options and their effect, files that are read back."""

import copy
import csv
import io
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from restora.apps.evaluate_plan import Entry
from restora.apps.evaluate_run import effect
from restora.artifact.checkpoint import find_runs
from restora.evaluation.benchmarks.denoise import Denoise
from restora.evaluation.benchmarks.jpeg import Jpeg
from restora.evaluation.benchmarks.super_resolution import SuperResolution
from restora.evaluation.methods import ClassicalMethod, NetworkMethod, Options
from restora.evaluation.results import Result, read_result, read_seeds, same_benchmark
from restora.evaluation.run import evaluate
from restora.evaluation.tables import notes, results_table
from restora.metrics.image import psnr, ssim
from restora.metrics.registry import METRICS
from restora.networks.base import Network
from restora.networks.dncnn import DnCNN
from restora.networks.layers.local_converter import convert
from restora.networks.nafnet import NAFNet
from restora.networks.vdsr import VDSR


class Identity(Network):
    """Gives back what it gets; of one or three channels, with or without a condition."""

    def __init__(self, *, in_channels: int = 1, condition_channels: int = 0) -> None:
        super().__init__()
        self.in_channels = self.out_channels = in_channels
        self.condition_channels = condition_channels

    def restore(self, x, condition):
        return x if condition is None else x + condition


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    return DnCNN(depth=4, channels=8).eval()


@pytest.fixture(scope="module")
def benchmark_(photo_folder: Path) -> Denoise:
    return Denoise(root=str(photo_folder), color="gray", sigma=25)


def figures(result: Result) -> list[tuple]:
    return [(row["name"], row["psnr"], row["ssim"], row["input_psnr"]) for row in result.rows]


def test_figures_are_those_of_direct_arithmetic(photo_folder: Path) -> None:
    benchmark = Denoise(root=str(photo_folder), color="rgb", sigma=25)
    result = evaluate(NetworkMethod("identity", Identity(in_channels=3)), benchmark)
    for row in result.rows:
        clean = np.array(Image.open(photo_folder / f"{row['name']}.png")) / 255
        noisy = clean + np.random.RandomState(0).normal(0, 25 / 255, clean.shape)
        restored = np.round(noisy.clip(0, 1) * 255) / 255
        assert (
            row["psnr"]
            == row["input_psnr"]
            == pytest.approx(-10 * np.log10(((restored - clean) ** 2).mean()), abs=1e-3)
        )
    assert result.mean("psnr") == pytest.approx(np.mean([row["psnr"] for row in result.rows]))


def test_one_and_two_processes_give_the_same_figures(network: Network, benchmark_: Denoise) -> None:
    method = NetworkMethod("dncnn", network)
    alone = evaluate(method, benchmark_)
    seen = []
    spread = evaluate(method, benchmark_, processes=2, on_photo=seen.append)
    assert figures(alone) == figures(spread)
    assert sorted(row["name"] for row in seen) == ["a", "b", "c"]


def test_classical_methods_run_in_parallel_to_the_same_figures(benchmark_: Denoise) -> None:
    method = ClassicalMethod("total_variation", "denoise")
    assert figures(evaluate(method, benchmark_)) == figures(evaluate(method, benchmark_, processes=2))


def test_an_error_in_a_process_reaches_the_caller(photo_folder: Path) -> None:
    method = NetworkMethod("identity", Identity(in_channels=3, condition_channels=2))
    with pytest.raises(ValueError, match="condition"):
        evaluate(method, Denoise(root=str(photo_folder), color="rgb", sigma=25), processes=2)


def test_bfloat16_agrees_to_a_hundredth_of_a_decibel(network: Network, benchmark_: Denoise) -> None:
    exact = evaluate(NetworkMethod("dncnn", network), benchmark_)
    half = evaluate(NetworkMethod("dncnn", network, Options(precision="bfloat16")), benchmark_)
    for one, other in zip(exact.rows, half.rows, strict=True):
        assert abs(one["psnr"] - other["psnr"]) < 0.01
        assert one["psnr"] != pytest.approx(one["input_psnr"], abs=0.05)


def test_the_condition_reaches_networks_that_take_one(photo_folder: Path) -> None:
    benchmark = Denoise(root=str(photo_folder), color="gray", sigma=51)
    method = NetworkMethod("shift", Identity(condition_channels=1))
    observation = benchmark.observe(0, method.intake)
    shifted = method.restore(observation)
    torch.testing.assert_close(shifted, (observation.degraded + 0.2).clamp(0, 1), rtol=0, atol=1e-6)


class Corner(Network):
    """Not equivariant: darkens the upper left corner."""

    in_channels = out_channels = 1

    def restore(self, x, condition):
        weight = torch.ones_like(x)
        weight[..., : x.shape[-2] // 2, : x.shape[-1] // 2] = 0
        return x * weight


def test_self_ensemble_is_the_mean_over_the_eight_symmetries(photo_folder: Path) -> None:
    benchmark = Denoise(root=str(photo_folder), color="gray", sigma=0)
    method = NetworkMethod("corner", Corner(), Options(self_ensemble=True))
    observation = benchmark.observe(0, method.intake)
    height, width = observation.clean.shape[-2:]
    restored = method.restore(observation)
    expected = (
        observation.clean * 0.75
    )  # every pixel off the middle lies in a darkened corner in 2 of 8 cases
    quarter = restored[..., : height // 2, : width // 2]
    torch.testing.assert_close(quarter, expected[..., : height // 2, : width // 2], rtol=0, atol=1e-6)


def test_tiles_of_an_equivariant_network_change_nothing(network: Network, benchmark_: Denoise) -> None:
    whole = evaluate(NetworkMethod("dncnn", network), benchmark_)
    tiled = evaluate(NetworkMethod("dncnn", network, Options(tile=48, overlap=20)), benchmark_)
    for one, other in zip(whole.rows, tiled.rows, strict=True):
        assert one["psnr"] == pytest.approx(other["psnr"], abs=1e-4)


def test_a_grey_network_restores_channels_apart(network: Network, photo_folder: Path) -> None:
    benchmark = Denoise(root=str(photo_folder), color="rgb", sigma=25)
    method = NetworkMethod("dncnn", network, Options(per_channel=True))
    observation = benchmark.observe(0, method.intake)
    restored = method.restore(observation)
    with torch.no_grad():
        green = network(observation.degraded[:, 1:2]).clamp(0, 1)
    torch.testing.assert_close(restored[:, 1:2], green, rtol=0, atol=1e-5)


@pytest.mark.parametrize("benchmark_class", [Denoise, Jpeg])
def test_a_network_of_colours_restores_grey_photos(
    benchmark_class: type[Denoise | Jpeg], photo_folder: Path
) -> None:
    torch.manual_seed(0)
    colour = DnCNN(in_channels=3, depth=3, channels=8).eval()
    severity = {Denoise: {"sigma": 25}, Jpeg: {"quality": 10}}[benchmark_class]
    benchmark = benchmark_class(root=str(photo_folder), color="gray", **severity)
    method = NetworkMethod("dncnn", colour)
    observation = benchmark.observe(0, method.intake)
    assert observation.degraded.shape[1] == observation.clean.shape[1] == 1
    with torch.no_grad():
        each = colour(observation.degraded.expand(-1, 3, -1, -1)).clamp(0, 1)
    assert not torch.allclose(each[:, :1], each[:, 1:2], atol=1e-3), (
        "the channels must differ to show the mean"
    )
    restored = method.restore(observation)
    torch.testing.assert_close(restored, each.mean(1, keepdim=True), rtol=0, atol=1e-5)


def test_the_local_converter_is_the_networks_own(photo_folder: Path) -> None:
    torch.manual_seed(0)
    network = NAFNet(width=4, encoder_blocks=[1], middle_blocks=1, decoder_blocks=[1]).eval()
    for block in network.modules():  # the blocks start as identities
        for name in ("beta", "gamma"):
            if isinstance(getattr(block, name, None), torch.nn.Parameter):
                getattr(block, name).data.fill_(1.0)
    benchmark = Denoise(root=str(photo_folder), color="rgb", sigma=25)
    plain = NetworkMethod("nafnet", network)
    converted = NetworkMethod("nafnet", network, Options(local_converter=(32, 32)))
    observation = benchmark.observe(0, plain.intake)
    expected = convert(copy.deepcopy(network), train_size=(32, 32)).eval()
    with torch.no_grad():
        answer = expected(observation.degraded).clamp(0, 1)
    torch.testing.assert_close(converted.restore(observation), answer, rtol=0, atol=1e-5)
    assert (plain.restore(observation) - answer).abs().max() > 1e-3


def test_luminance_networks_answer_as_published_whatever_they_were_built_for(photo_folder: Path) -> None:
    benchmark = SuperResolution(root=str(photo_folder), color="y", scale=2)
    torch.manual_seed(0)
    colour = VDSR(scale=2, depth=3, channels=4).eval()
    grey = VDSR(scale=2, depth=3, channels=4, in_channels=1).eval()
    grey.load_state_dict(colour.state_dict())
    results = [
        evaluate(NetworkMethod("vdsr", network, luminance=True), benchmark) for network in (colour, grey)
    ]
    assert figures(results[0]) == figures(results[1])


def test_result_is_read_back_as_written(network: Network, benchmark_: Denoise, tmp_path: Path) -> None:
    result = evaluate(NetworkMethod("dncnn", network), benchmark_, metrics=("psnr", "ssim", "ms_ssim"))
    result.write(tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["images"] == 3
    assert summary["psnr"] == pytest.approx(result.mean("psnr"))
    assert summary["protocol"]["sigma"] == 25
    assert summary["protocol"]["color"] == "gray"
    assert "too small" in summary["not_computed"]["ms_ssim"]
    with (tmp_path / "per_image.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0])[:3] == ["name", "psnr", "ssim"]
    assert math.fsum(float(line["psnr"]) for line in lines) / 3 == pytest.approx(summary["psnr"])
    again = read_result(tmp_path)
    assert again.rows == result.rows
    assert again.summary() == result.summary()


def test_a_perfect_answer_leaves_valid_json(photo_folder: Path, tmp_path: Path) -> None:
    benchmark = Denoise(root=str(photo_folder), color="gray", sigma=0)
    evaluate(NetworkMethod("identity", Identity()), benchmark).write(tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["psnr"] is None
    assert "equals its original" in summary["not_computed"]["psnr"]
    assert math.isinf(read_result(tmp_path).rows[0]["psnr"])


def test_restored_photos_are_saved_as_scored(benchmark_: Denoise, tmp_path: Path) -> None:
    result = evaluate(NetworkMethod("identity", Identity()), benchmark_, images=tmp_path)
    saved = torch.from_numpy(np.array(Image.open(tmp_path / "a.png"))).float()[None, None] / 255
    clean = benchmark_.read(0, "gray")
    assert psnr(saved, clean).item() == pytest.approx(result.rows[0]["psnr"], abs=1e-4)
    assert ssim(saved, clean).item() == pytest.approx(result.rows[0]["ssim"], abs=1e-5)


def test_results_of_different_benchmarks_are_told_apart(photo_folder: Path, tmp_path: Path) -> None:
    for sigma in (15, 25):
        benchmark = Denoise(root=str(photo_folder), color="gray", sigma=sigma)
        evaluate(NetworkMethod("identity", Identity()), benchmark).write(tmp_path / str(sigma))
    assert same_benchmark([read_result(tmp_path / "15"), read_result(tmp_path / "15")]) is None
    assert "sigma is 15" in str(same_benchmark(read_seeds(tmp_path)))


def test_results_and_runs_behind_links_are_found_once(photo_folder: Path, tmp_path: Path) -> None:
    benchmark = Denoise(root=str(photo_folder), color="gray", sigma=15)
    evaluate(NetworkMethod("identity", Identity()), benchmark).write(tmp_path / "disk" / "seed1")
    (tmp_path / "disk" / "seed1" / "run.json").write_text("{}")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "seed1").symlink_to(tmp_path / "disk" / "seed1")
    (tmp_path / "disk" / "loop").symlink_to(tmp_path / "disk")
    for folder in ("linked", "disk"):
        assert len(read_seeds(tmp_path / folder)) == 1
        assert find_runs(tmp_path / folder) == [tmp_path / folder / "seed1"]


def test_missing_results_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="restora evaluate"):
        read_seeds(tmp_path)


@pytest.mark.parametrize(
    ("summary", "table"),
    [
        ('{"protocol": [1]}', "name,psnr\na,20\n"),
        ('{"leakage": 3}', "name,psnr\na,20\n"),
        ("{}", "name,psnr\n"),
    ],
)
def test_damaged_results_are_named(summary: str, table: str, tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(summary)
    (tmp_path / "per_image.csv").write_text(table)
    with pytest.raises(ValueError, match="cannot be read as results: .*unexpected content"):
        read_result(tmp_path)


def test_output_that_is_not_finite_is_refused_with_its_photo(photo_folder: Path) -> None:
    class Broken(Network):
        in_channels = out_channels = 1

        def restore(self, x, condition):
            return x * math.nan

    benchmark = Denoise(root=str(photo_folder), color="gray", sigma=25)
    with pytest.raises(ValueError, match="not finite.* a"):
        evaluate(NetworkMethod("broken", Broken()), benchmark)


def test_two_evaluations_into_one_folder_keep_their_own_drafts(benchmark_: Denoise, tmp_path: Path) -> None:
    """A draft of a running process stays, one of a killed process goes."""
    running, killed = (tmp_path / f".images.{process}.part" for process in (os.getppid(), 2**22 + 1))
    for draft in (running, killed):
        draft.mkdir()
        (draft / "a.png").write_bytes(b"")
    evaluate(ClassicalMethod("median", "denoise"), benchmark_, images=tmp_path / "images")
    assert sorted(path.name for path in tmp_path.iterdir()) == [running.name, "images"]
    assert all(path.stat().st_size for path in (tmp_path / "images").iterdir())


def test_infinite_scores_are_no_rank_and_no_error() -> None:
    same, other = ({"name": "a", "psnr": value, "ssim": 1.0, "seconds": 0.1} for value in (math.inf, 30.0))
    results = [Result("same", {}, [same]), Result("other", {}, [other])]
    assert any("infinite" in line for line in notes(results))
    entry = Entry(ClassicalMethod("median", "denoise"), {}, effects=["tiles of 8"])
    results[0].effect = effect(entry, *results)
    assert list(results[0].effect["difference"]) == ["ssim"]
    assert any("tiles of 8: takes 1.0 times as long" in line for line in notes(results))


def test_no_figure_of_a_table_is_cut_off_at_80_columns() -> None:
    row = dict.fromkeys(METRICS, 12.3456) | {"name": "a", "seconds": 123.4}
    rows = [row, {**row, "psnr": 112.3, "name": "b"}]
    results = [Result("a method of a long name", {}, rows), Result("other", {}, rows)]
    console = Console(width=80, file=io.StringIO())
    console.print(results_table(results, "title"))
    printed = console.file.getvalue()
    assert "…" not in printed
    assert max(map(len, printed.splitlines())) <= 80
    assert all(word in printed for word in ("123.40", "MS-SSIM", "BRISQUE", "ΔE00"))
