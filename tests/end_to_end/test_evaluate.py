"""`restora evaluate` as strangers script it: published figures, the files it writes, what it refuses."""

import csv
import json
import math
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from run_folders import tiny_network, write_run
from safetensors.torch import save_file
from skimage import data
from warm_start import start_restora

from restora.apps.export import main as export
from restora.cli import main
from restora.networks.ffdnet import FFDNet


def evaluate(*words: str) -> int:
    return main(["evaluate", *words])


def summary(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


def per_image(folder: Path) -> list[dict[str, str]]:
    with (folder / "per_image.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three small colour photos, in a folder whose name no shell or grammar likes."""
    folder = tmp_path_factory.mktemp("test photos, (3) = all")
    for index, photo in enumerate((data.chelsea(), data.coffee(), data.astronaut())):
        crop = np.ascontiguousarray(photo[100 : 164 + index, 90:160])
        Image.fromarray(crop).save(folder / f"photo{index}.png")
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A colour DnCNN's weights as strangers wrap them."""
    path = tmp_path_factory.mktemp("weights") / "net=4,8.pth"
    state = {f"module.{name}": value for name, value in tiny_network().state_dict().items()}
    torch.save({"params": state}, path)
    return path


def test_the_contract_of_the_command_line(photos: Path, weights: Path, tmp_path: Path) -> None:
    output = tmp_path / "out put"
    code = evaluate(
        "network=dncnn", f"weights={weights}", "benchmark=denoise", "benchmark.sigma=25",
        f"benchmark.root={photos}", "benchmark.color=rgb", f"output={output}",
    )  # fmt: skip
    assert code == 0
    rows, figures = per_image(output), summary(output)
    assert [row["name"] for row in rows] == ["photo0", "photo1", "photo2"]
    assert list(rows[0])[:3] == ["name", "psnr", "ssim"]
    assert figures["images"] == 3
    for metric in ("psnr", "ssim"):
        mean = math.fsum(float(row[metric]) for row in rows) / 3
        assert figures[metric] == pytest.approx(mean, abs=1e-6)
    assert figures["protocol"]["sigma"] == 25
    assert figures["protocol"]["color"] == "rgb"
    assert figures["method"]["changed"] == {"in_channels": 3, "depth": 4, "channels": 8}


def test_the_figures_are_those_of_the_network_itself(photos: Path, weights: Path, tmp_path: Path) -> None:
    evaluate(
        "network=dncnn", f"weights={weights}", "benchmark=denoise", "benchmark.sigma=15",
        f"benchmark.root={photos}", f"output={tmp_path}",
    )  # fmt: skip
    network = tiny_network()
    for row in per_image(tmp_path):
        clean = np.array(Image.open(photos / f"{row['name']}.png")) / 255
        noisy = clean + np.random.RandomState(0).normal(0, 15 / 255, clean.shape)
        with torch.no_grad():
            restored = (
                network(torch.from_numpy(noisy).permute(2, 0, 1)[None].float())[0].permute(1, 2, 0).numpy()
            )
        restored = np.round(restored.clip(0, 1).astype(np.float64) * 255) / 255
        assert float(row["psnr"]) == pytest.approx(-10 * np.log10(((restored - clean) ** 2).mean()), abs=2e-3)


def test_a_run_and_its_model_folder_score_alike(photos: Path, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    assert export([str(run), "--no-onnx"]) == 0
    common = ["benchmark=denoise", "benchmark.sigma=25", f"benchmark.root={photos}"]
    assert evaluate(f"checkpoint={run}", *common, f"output={tmp_path}/a") == 0
    assert evaluate(f"model={run}/model", *common, f"output={tmp_path}/b") == 0
    assert evaluate(f"checkpoint={run}/checkpoints/best.ckpt", *common, f"output={tmp_path}/c") == 0
    assert evaluate(f"weights={run}/model", *common, f"output={tmp_path}/d") == 0
    first = [row["psnr"] for row in per_image(tmp_path / "a")]
    assert [row["psnr"] for row in per_image(tmp_path / "b")] == first
    assert [row["psnr"] for row in per_image(tmp_path / "c")] == first
    assert [row["psnr"] for row in per_image(tmp_path / "d")] == first


def test_what_a_run_was_trained_against_is_a_benchmark(photos: Path, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    assert (
        evaluate(
            f"checkpoint={run}", "benchmark=degraded", f"benchmark.root={photos}", f"output={tmp_path}/o"
        )
        == 0
    )
    assert summary(tmp_path / "o")["protocol"]["degradation"]["sigma"] == 25


@pytest.mark.parametrize(
    ("learnt", "evaluated"),
    [
        (["network=dncnn_small", "degradation=gaussian_noise"], []),
        (
            ["network=edsr_small", "network.scale=2", "degradation=bicubic_x2"],
            ["benchmark.border=2"],
        ),
    ],
    ids=["unclipped noise", "reduced"],
)  # fmt: skip
def test_a_run_and_its_evaluation_give_one_figure(
    photos: Path, tmp_path: Path, learnt: list[str], evaluated: list[str]
) -> None:
    for split in ("train", "val", "test"):
        shutil.copytree(photos, tmp_path / "photos" / split)
    train = [
        "train", "data=folder", f"data.source.root={tmp_path}/photos", f"data_dir={tmp_path}/data",
        "data.patch_size=16", "data.steps_per_epoch=2", "trainer=cpu", "trainer.max_steps=2",
        "leakage.check=false", "logger.mode=disabled", "threads=1", f"hydra.run.dir={tmp_path}/run",
    ]  # fmt: skip
    assert main([*train, *learnt]) == 0
    settings = [f"checkpoint={tmp_path}/run/checkpoints/last.ckpt", "benchmark=degraded", *evaluated]
    assert evaluate(*settings, f"benchmark.root={tmp_path}/photos/test", f"output={tmp_path}/o") == 0
    images = json.loads((tmp_path / "run" / "run.json").read_text())["test"]["images"]
    for own, row in zip(images, per_image(tmp_path / "o"), strict=True):
        assert own["name"] == row["name"]
        for metric in ("psnr", "ssim", "input_psnr", "input_ssim"):
            assert own[metric] == pytest.approx(float(row[metric]), abs=2e-3), metric


def test_a_network_with_a_noise_map_gets_the_level(photos: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_file(FFDNet(in_channels=1, depth=4, channels=8).state_dict(), tmp_path / "ffdnet.safetensors")
    common = [
        "network=ffdnet", f"weights={tmp_path}/ffdnet.safetensors", "benchmark=denoise",
        f"benchmark.root={photos}", "benchmark.color=gray", "benchmark.sigma=25",
    ]  # fmt: skip
    assert evaluate(*common, f"output={tmp_path}/a") == 0
    assert evaluate(*common, "benchmark.conditioned_sigma=75", f"output={tmp_path}/b") == 0
    assert summary(tmp_path / "a")["psnr"] != summary(tmp_path / "b")["psnr"]
    assert summary(tmp_path / "a")["input"] == summary(tmp_path / "b")["input"]


def test_settings_without_effect_or_sense_are_refused(
    photos: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = [f"weights={weights}", "benchmark=denoise", f"benchmark.root={photos}", "benchmark.sigma=25"]
    for words, reason in (
        (["benchmark.conditioned_sigma=40"], "dncnn does not"),
        (["benchmark.conditioned_sigma=-1"], "conditioned_sigma"),
        (["benchmark.color=y", "metrics=delta_e"], "delta_e is for whole photos"),
    ):
        assert evaluate("network=dncnn", *common, *words, f"output={tmp_path}/o") == 2
        assert reason in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_several_methods_share_a_table_and_can_be_compared(
    photos: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = evaluate(
        "network=dncnn", f"weights={weights}", "classical=median,gaussian", "benchmark=denoise",
        "benchmark.sigma=25", f"benchmark.root={photos}", "metrics=psnr_b,niqe", f"output={tmp_path}",
        "images=true", "processes=1",
    )  # fmt: skip
    assert code == 0
    figures = summary(tmp_path)
    assert set(figures["methods"]) == {"dncnn", "median", "gaussian"}
    assert figures["psnr"] == figures["methods"]["dncnn"]["psnr"]
    assert figures["psnr_b"] is not None
    assert figures["not_computed"]["niqe"]
    printed = capsys.readouterr().out
    assert "niqe was not computed" in printed
    assert max(map(len, printed.splitlines())) <= 80
    assert evaluate(f"compare={tmp_path}/median,{tmp_path}/gaussian", f"output={tmp_path}") == 0
    pair = json.loads((tmp_path / "comparison.json").read_text())["pairs"][0]
    difference = figures["methods"]["median"]["psnr"] - figures["methods"]["gaussian"]["psnr"]
    assert pair["psnr"]["difference"] == pytest.approx(difference, abs=1e-6)
    assert pair["psnr"]["verdict"] == "cannot tell"
    printed = capsys.readouterr().out
    assert "3 photos are too few for a significant difference" in printed
    assert "sheet.jpg" in printed.replace("\n", "")
    with Image.open(tmp_path / "sheet.jpg") as sheet:
        width, height = sheet.size
        pictures = np.asarray(sheet)[height - 90, :, 0]
    assert width > 3 * 64  # the clean photo and two answers, in a row
    assert pictures.std() > 10


CLASSICAL = {
    "denoise benchmark.sigma=25": {
        "median", "gaussian", "bilateral", "wiener", "total_variation", "wavelet", "nl_means", "bm3d"
    },
    "jpeg benchmark.quality=10": {"median", "gaussian", "bilateral", "wiener", "total_variation", "nl_means"},
    "deblur": {"inverse_filter", "wiener_deconvolution", "richardson_lucy", "unsupervised_wiener"},
    "super_resolution benchmark.scale=2": {"bicubic", "lanczos"},
    "inpaint": {"biharmonic", "harmonic", "navier_stokes", "telea"},
}  # fmt: skip


@pytest.mark.parametrize("task", CLASSICAL)
def test_every_classical_method_stands_in_one_table_with_a_network(
    task: str, photos: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("bm3d")
    words = [
        "network=dncnn", f"weights={weights}", "classical=all", *f"benchmark={task}".split(),
        f"benchmark.root={photos}", "benchmark.limit=1", "processes=1", f"output={tmp_path}",
    ]  # fmt: skip
    assert evaluate(*words) == 0
    methods = summary(tmp_path)["methods"]
    assert {"dncnn", *CLASSICAL[task]} <= set(methods)
    printed = capsys.readouterr().out
    for name, figures in methods.items():
        assert f" {name} " in printed
        assert 5 < figures["psnr"] < 60
        assert figures["input"] == methods["dncnn"]["input"]


def test_options_report_their_effect(
    photos: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = [
        "network=dncnn", f"weights={weights}", "benchmark=denoise", "benchmark.sigma=25",
        f"benchmark.root={photos}",
    ]  # fmt: skip
    assert evaluate(*common, "self_ensemble=true", f"output={tmp_path}/a") == 0
    assert evaluate(*common, f"output={tmp_path}/b") == 0
    effect = summary(tmp_path / "a")["effect"]
    gained = summary(tmp_path / "a")["psnr"] - summary(tmp_path / "b")["psnr"]
    assert effect["options"] == ["self-ensemble x8"]
    assert effect["difference"]["psnr"]["mean"] == pytest.approx(gained, abs=1e-5)
    assert "self-ensemble x8: " in capsys.readouterr().out


def test_severities_become_a_curve(photos: Path, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    code = evaluate(
        f"checkpoint={run}", "classical=gaussian", "benchmark=denoise",
        "severities=15,25", f"benchmark.root={photos}", f"output={tmp_path}/o", "processes=1",
    )  # fmt: skip
    assert code == 0
    with (tmp_path / "o" / "severity.csv").open(newline="") as file:
        rows = {(row["method"], row["severity"]): row for row in csv.DictReader(file)}
    assert set(rows) == {(name, level) for name in ("input", "dncnn", "gaussian") for level in ("15", "25")}
    assert rows["dncnn", "25"]["inside_trained_range"] == "true"
    assert rows["dncnn", "15"]["inside_trained_range"] == "false"
    assert float(rows["input", "15"]["mean"]) > float(rows["input", "25"]["mean"]) + 3
    at_25 = summary(tmp_path / "o" / "sigma=25")["methods"]["gaussian"]
    assert float(rows["gaussian", "25"]["mean"]) == pytest.approx(at_25["psnr"], abs=1e-4)
    page = (tmp_path / "o" / "severity.html").read_text()
    assert "plotly" in page
    assert 'src="http' not in page


DENOISE_25 = ["classical=median", "benchmark=denoise", "benchmark.sigma=25"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["network=dncnn", "benchmark=denoise", "benchmark.sigma=25"], "weights=FILE"),
        (["classical=median", "benchmark=denoise"], "benchmark.sigma=…"),
        (["classical=median"], "benchmark=denoise"),
        (["classical=medain", "benchmark=denoise", "benchmark.sigma=25"], "median, gaussian"),
        (["benchmark=denoise", "benchmark.sigma=25"], "classical=NAME"),
        (["benchmark=denois", "benchmark.sigma=25"], "benchmark=denoise"),
        (["classical=median", "benchmark=denoise", "benchmark.sigm=25"], "benchmark.sigma"),
        (["classical=median", "benchmark=denoise", "benchmark.sigma=25", "metrics=pnsr"], "psnr, ssim"),
        ([*DENOISE_25, "benchmark.root=''"], "which photos? Set benchmark.root=FOLDER, or"),
        (["compare=one"], "two result folders"),
        ([*DENOISE_25, "severities=low"], "severities must be a list of numbers"),
        ([*DENOISE_25, "severities=15,-1"], "of at least 0, got -1"),
        (["classical=telea", "benchmark=inpaint", "severities=1"], "has no severity to vary"),
        ([*DENOISE_25, "benchmark.limit=0"], "benchmark.limit is a number of photos >= 1"),
        ([*DENOISE_25, "benchmark.color=grey"], "gray, rgb, y"),
        ([*DENOISE_25, f"output={__file__}"], "is a file; name a folder"),
        ([*DENOISE_25, "training_photos=/nowhere"], "training_photos=/nowhere"),
        (["network=vdsr", "weights=/nowhere.pth", *DENOISE_25[1:]], "there is no weights file"),
        (["network=vdsr", "weights=zoo:denoise", *DENOISE_25[1:]], "its own network: leave network= out"),
        (["weights=zoo:inpaint", *DENOISE_25[1:], "benchmark.color=rgb"], "needs the mask"),
        (["model=zoo:inpaint", *DENOISE_25[1:], "benchmark.color=rgb"], "needs the mask"),
        (["model=zoo:denoise", "benchmark=super_resolution", "benchmark.scale=2"], "needs a condition"),
    ],
)
def test_mistakes_are_named(
    words: list[str],
    message: str,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Before the first photo, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    typed = " ".join(words)
    root = [] if "benchmark=" not in typed or "benchmark.root=" in typed else [f"benchmark.root={photos}"]
    assert evaluate(*words, *root) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_benchmark_asks_for_photos(capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(*DENOISE_25) == 2
    assert "which photos? Set benchmark.root=FOLDER, or benchmark/testset=NAME" in capsys.readouterr().err


def test_a_file_that_is_no_photo_is_named_before_the_first_one(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    (folder / "zz.png").write_text("no photo")
    assert evaluate(*DENOISE_25, f"benchmark.root={folder}", f"output={tmp_path}/o") == 2
    assert "zz.png: is not a photo" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_photos_that_cannot_be_decoded_leave_nothing_half_written(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    whole = (folder / "photo2.png").read_bytes()
    (folder / "photo2.png").write_bytes(whole[: len(whole) // 2])
    words = [*DENOISE_25, f"benchmark.root={folder}", f"output={tmp_path}/o", "images=true", "processes=1"]
    assert evaluate(*words) == 2
    assert "photo2.png" in capsys.readouterr().err
    assert [path for path in (tmp_path / "o").rglob("*") if path.is_file()] == []
    (folder / "photo2.png").write_bytes(whole)
    assert evaluate(*words) == 0
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == [
        "images", "per_image.csv", "summary.json"
    ]  # fmt: skip
    assert len(list((tmp_path / "o" / "images").iterdir())) == 3


def test_results_of_other_photos_are_compared_on_what_they_share(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = [*DENOISE_25[1:], f"benchmark.root={photos}", "processes=1"]
    assert evaluate("classical=median", *common, f"output={tmp_path}/a") == 0
    assert evaluate("classical=gaussian", *common, "benchmark.limit=2", f"output={tmp_path}/b") == 0
    capsys.readouterr()
    assert evaluate(f"compare={tmp_path}/a,{tmp_path}/b") == 0
    printed = capsys.readouterr().out
    assert "compared only on what all results share: 2 photos" in printed
    table = (tmp_path / "b" / "per_image.csv").read_text()
    (tmp_path / "b" / "per_image.csv").write_text(table.replace("photo", "other"))
    assert evaluate(f"compare={tmp_path}/a,{tmp_path}/b") == 2
    assert "share no photo" in capsys.readouterr().err


def test_a_grey_network_on_colour_photos_says_what_to_set(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(tiny_network(in_channels=1).state_dict(), tmp_path / "grey.pth")
    words = [
        "network=dncnn", f"weights={tmp_path}/grey.pth", "benchmark=denoise", "benchmark.sigma=25",
        f"benchmark.root={photos}", f"output={tmp_path}/o",
    ]  # fmt: skip
    assert evaluate(*words) == 2
    assert "benchmark.color=gray" in capsys.readouterr().err
    assert evaluate(*words, "benchmark.color=gray") == 0
    assert evaluate(*words, "per_channel=true") == 0


@pytest.mark.slow
def test_processes_end_with_the_command_that_is_killed(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (1200, 1200, 3), np.uint8)
    for number in range(4):
        Image.fromarray(noise).save(tmp_path / f"{number}.png")
    words = ["evaluate", "classical=total_variation,nl_means", "benchmark=denoise", "benchmark.sigma=25"]
    words += [f"benchmark.root={tmp_path}", "processes=2", f"output={tmp_path}/figures"]
    command = start_restora(*words)
    until = time.monotonic() + 60
    while len(workers := descendants(command.pid)) < 5:  # ours, a tracker, a server and two that compute
        assert time.monotonic() < until, workers
        assert command.poll() is None
        time.sleep(0.05)
    command.kill()
    command.wait()
    until = time.monotonic() + 10
    while left := [pid for pid in workers if running(pid)]:
        assert time.monotonic() < until, left
        time.sleep(0.05)


def descendants(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob(f"{pid}/task/*/children"):
        for child in map(int, path.read_text().split()):
            found += [child, *descendants(child)]
    return found


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
