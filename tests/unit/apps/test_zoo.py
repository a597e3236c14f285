"""The models that come with restora: small, whole, measured, and reachable wherever a model is named."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from run_folders import write_run
from safetensors.torch import load_file

from restora import Restorer, open_source
from restora.apps import zoo, zoo_ship
from restora.artifact.model_folder import read_description, stated_in
from restora.cli import main
from restora.config import compose
from restora.data.free_photos import manifest
from restora.training.build import build_on_meta
from restora.training.initial import initial_weights
from restora.zoo import index
from restora.zoo.index import DEFAULT, folder_of, names, offered
from restora.zoo.references import CURVES, MEASURED, PSNR


@pytest.mark.parametrize("name", names())
def test_the_experiment_of_a_shipped_model_has_its_network(name: str) -> None:
    """So fine-tuning by `experiments=zoo/NAME init=zoo:NAME` starts from what the model computes."""
    words = {"denoise_gray": ["network.residual=false"]}.get(name, [])  # weights of before that was added
    config = compose("train", [f"experiments=zoo/{name}", f"init=zoo:{name}", *words])
    found = initial_weights(config, build_on_meta(config.network))
    assert found is not None
    assert (found.transfer.complete, found.otherwise) == (True, {})


def test_each_shipped_model_is_small_whole_measured_and_credited() -> None:
    assert names()
    sizes = []
    for name in names():
        folder = folder_of(name)
        assert {path.name for path in folder.iterdir()} == {"README.md", "model.json", "weights.safetensors"}
        size = sum(path.stat().st_size for path in folder.iterdir())
        assert size <= 3_000_000, name
        sizes.append(size)
        loaded = open_source(f"zoo:{name}")
        assert loaded.name == name
        card = (folder / "README.md").read_text(encoding="utf-8")
        figures = {row["benchmark"]: row for row in zoo.describe(name)["benchmarks"]}
        assert f'Restorer.load("zoo:{name}"' in card
        assert figures, f"{name} is not measured: restora zoo verify {name} --write"
        for row in figures.values():
            assert f"{row['psnr']:.2f} dB" in card
            assert row["psnr"] > row["input_psnr"], "it harms"
        points = {point["severity"]: point for point in read_description(folder).metrics.get("curve", [])}
        assert set(points) == set(CURVES.get(name, ("", ()))[1]), f"restora zoo verify {name} --write"
        harming = [f"{at:g}" for at, point in points.items() if point["psnr"] <= point["input_psnr"]]
        assert not harming or f"**At {', '.join(harming)} the result is worse" in card
        training = read_description(folder).metrics["training"]
        assert all(training[key] for key in ("command", "commit", "date", "machine", "seed", "steps")), (
            training
        )
        for photo in manifest()[1].values():
            assert photo.author in card, photo.author
            assert photo.licence in card
    assert sum(sizes) <= 20_000_000
    assert (index.FOLDER / "LICENSE-WEIGHTS.md").is_file()


def test_the_list_has_the_figures(capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["zoo"]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert main(["zoo", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [model["name"] for model in listed] == names()
    for model in listed:
        assert model["source"] in shown
        for row in model["benchmarks"]:
            assert f"{row['psnr']:.2f} dB" in shown


def test_a_name_that_is_not_shipped_is_answered_with_a_near_one() -> None:
    known = names()[0]
    with pytest.raises(ValueError, match=rf"no model zoo:{known}s\. Did you mean zoo:{known}\?"):
        open_source(f"zoo:{known}s")


@pytest.fixture
def noisy(tmp_path: Path) -> Path:
    """A smooth photo with noise of 25, and beside it the clean one."""
    y, x = np.mgrid[:64, :72]
    clean = np.stack([x * 3, y * 3, 255 - x - y], -1).clip(0, 255).astype(np.uint8)
    noise = np.random.default_rng(0).normal(0, 25, clean.shape)
    (tmp_path / "clean").mkdir()
    Image.fromarray(clean).save(tmp_path / "clean" / "a.png")
    Image.fromarray((clean + noise).clip(0, 255).round().astype(np.uint8)).save(tmp_path / "noisy.png")
    return tmp_path


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"), np.float64)


@pytest.mark.slow
def test_commands_take_a_shipped_model_by_its_name(noisy: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(noisy)
    source = "zoo:denoise"
    assert open_source(source).task == "denoise"
    assert main(["restore", source, "noisy.png", "restored.png", "--sigma", "25"]) == 0
    before = np.abs(pixels(noisy / "noisy.png") - pixels(noisy / "clean" / "a.png")).mean()
    after = np.abs(pixels(noisy / "restored.png") - pixels(noisy / "clean" / "a.png")).mean()
    assert after < before / 3
    words = [
        "benchmark=denoise",
        "benchmark.root=clean",
        "benchmark.sigma=25",
        "output=figures",
    ]
    assert main(["evaluate", f"model={source}", *words]) == 0
    summary = json.loads((noisy / "figures" / "summary.json").read_text())
    assert summary["psnr"] > summary["input"]["psnr"] + 5
    assert main(["export", source, "--no-onnx", "--photos", "clean"]) == 0
    copied = noisy / source.removeprefix("zoo:") / "model"
    flat = torch.full((1, open_source(source).network.in_channels, 16, 16), 0.5)
    assert torch.equal(Restorer.load(source, sigma=25)(flat), Restorer.load(copied, sigma=25)(flat))


def test_a_photo_is_restored_where_no_model_is_named(noisy: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(noisy)
    assert offered()[0] == DEFAULT == "zoo:photo"
    assert "zoo:half_minute" not in offered()
    assert main(["restore", "noisy.png", "--tile", "0", "default.png"]) == 0
    assert main(["restore", DEFAULT, "noisy.png", "--tile", "0", "named.png"]) == 0
    assert np.array_equal(pixels(noisy / "default.png"), pixels(noisy / "named.png"))
    for model in ("zoo:photo", "method:dip", "weights.pth", "model"):
        (noisy / "model").mkdir(exist_ok=True)
        (noisy / "model" / "model.json").touch()
        assert main(["restore", model, "noisy.png"]) == 2
        assert f"OUTPUT is missing: restora restore {model} noisy.png OUTPUT" in capsys.readouterr().err


def test_shipped_weights_lie_on_a_coarse_grid() -> None:
    weights = 0.05 * torch.randn(40, 10, 3, 3, generator=torch.Generator().manual_seed(0))
    kept = zoo_ship.rounded(weights)
    step = 2.0**-10  # nearest to 0.05 / 64
    assert kept.dtype == torch.float16
    assert torch.equal(kept.float() / step, (weights / step).round())
    error = (kept.float() - weights).square().mean() / weights.square().mean()
    assert -46 < 10 * error.log10() < -44  # dB
    packed, full = (len(zlib.compress(kind.numpy().tobytes(), 9)) for kind in (kept, weights.half()))
    assert packed < 0.75 * full


def test_shipped_small_layers_and_constants_keep_their_digits() -> None:
    for weights in (
        torch.tensor([0.1, -0.3, 0.75]),
        torch.full((2, 2), 0.1),
        torch.zeros(1, 1),
        torch.ones(1, 1),
    ):
        assert torch.equal(zoo_ship.rounded(weights), weights.half())


@pytest.mark.slow
def test_a_run_is_shipped_in_half_precision_and_measured(
    noisy: Path,
    monkeypatch,
    capsys,
) -> None:
    monkeypatch.setattr(index, "FOLDER", noisy / "models")
    monkeypatch.setattr(zoo_ship, "FOLDER", noisy / "models")
    (noisy / "run").mkdir()
    run = str(write_run(noisy / "run"))
    folder = zoo_ship.ship(run, "tiny", commit="abc", folder=noisy / "models")
    weights = load_file(folder / "weights.safetensors").values()
    assert {value.dtype for value in weights if value.is_floating_point()} == {torch.float16}
    assert stated_in(folder / "weights.safetensors")["network"] == read_description(folder).network
    assert "Not measured yet" in (folder / "README.md").read_text()
    monkeypatch.setitem(MEASURED, "tiny", ("cbsd68_sigma25",))
    (noisy / "data" / "testsets").mkdir(parents=True)
    (noisy / "clean").rename(noisy / "data" / "testsets" / "CBSD68")
    verify = ["zoo", "verify", "tiny", "--data-dir", str(noisy / "data")]
    assert main([*verify, "--write"]) == 0
    measured = zoo.describe("tiny")["benchmarks"][0]
    assert measured["references"] == PSNR["cbsd68_sigma25"]
    assert f"{measured['psnr']:.2f} dB" in (folder / "README.md").read_text()
    assert main(verify) == 0
    assert "(+0.0000)" in capsys.readouterr().out
    zoo_ship.with_figures(folder, [measured | {"psnr": measured["psnr"] + 0.02}])
    assert main(verify) == 1, "a figure that is not reproduced"
    monkeypatch.setattr(zoo_ship, "LARGEST", 100)
    with pytest.raises(ValueError, match="at most 0.0001 are shipped"):
        zoo_ship.ship(run, "large", folder=noisy / "models")


def test_figures_that_cannot_be_measured_share_a_line_by_their_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(folder: Path, benchmark: str, **options: object) -> None:
        raise ValueError(f"there is no {benchmark.partition('_')[0]}")

    monkeypatch.setattr(zoo, "measure", fail)
    assert main(["zoo", "verify", "jpeg", "denoise_gray"]) == 1
    kodak, first, *others = capsys.readouterr().out.splitlines()
    assert kodak.startswith("not measured (4): jpeg kodak24_jpeg, ")
    assert kodak.endswith(": there is no kodak24")
    assert first.startswith("not measured (7): jpeg bsd68_q10, ")
    assert first.endswith("denoise_gray bsd68_sigma50: there is no bsd68")
    assert [line.rpartition(": ")[2] for line in others[:-1]] == ["there is no classic5", "there is no live1"]
    assert others[-1].startswith("--data-dir DIR")
