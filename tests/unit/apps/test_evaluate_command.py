"""`restora evaluate`: which methods are measured, what is kept when one fails, which settings are refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from restora.apps.evaluate import main
from restora.evaluation import classical
from restora.evaluation.benchmarks.deblur import Deblur
from restora.evaluation.results import read_result
from restora.networks.dncnn import DnCNN

DENOISE = ("benchmark=denoise", "benchmark.sigma=25", "benchmark.color=gray", "processes=1")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A folder of one small photo."""
    (tmp_path / "photos").mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (20, 23, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photos" / "small.png")
    return tmp_path / "photos"


def evaluate(photo: Path, *words: str) -> Path:
    output = photo.parent / "out"
    assert main([*words, f"benchmark.root={photo}", f"output={output}"]) == 0
    return output


def test_a_method_whose_package_is_missing_is_left_out_of_all_and_named(
    photo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the others' figures being lost; one that is asked for by name is refused at once."""
    monkeypatch.setattr(classical, "find_spec", lambda package: None if package == "cv2" else package)
    output = evaluate(photo, "classical=harmonic,all", "benchmark=inpaint", "processes=1")
    assert set(json.loads((output / "summary.json").read_text())["methods"]) == {"harmonic", "biharmonic"}
    assert "telea was not computed: needs the package cv2" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"classical=telea needs the package cv2: pip install opencv"):
        evaluate(photo, "classical=harmonic,telea", "benchmark=inpaint")


def test_figures_of_the_methods_before_a_failure_are_kept(
    photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(pixels: np.ndarray, known: classical.Known) -> np.ndarray:
        raise ValueError("no memory left")

    monkeypatch.setitem(classical.METHODS["denoise"], "wiener", fails)
    with pytest.raises(ValueError, match="wiener, photo small: no memory left"):
        evaluate(photo, "classical=median,wiener", *DENOISE)
    assert read_result(photo.parent / "out" / "median").mean() is not None
    assert not (photo.parent / "out" / "summary.json").exists()


def test_a_network_and_a_method_of_one_name_have_figures_of_their_own(photo: Path) -> None:
    network = DnCNN(depth=3, channels=4)
    torch.save(network.state_dict(), photo.parent / "weights.pth")
    named = classical.METHODS["denoise"] | {"dncnn": lambda pixels, known: pixels}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(classical.METHODS, "denoise", named)
        output = evaluate(photo, f"weights={photo.parent}/weights.pth", "classical=dncnn", *DENOISE)
    methods = json.loads((output / "summary.json").read_text())["methods"]
    assert set(methods) == {"dncnn", "dncnn_network"}
    assert methods["dncnn"]["psnr"] == methods["dncnn"]["input"]["psnr"]


def test_a_curve_says_what_options_do_and_which_metrics_are_missing(
    photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(DnCNN(depth=3, channels=4).state_dict(), photo.parent / "weights.pth")
    words = ("self_ensemble=true", "metrics=ms_ssim", "severities=15,25")
    evaluate(photo, f"weights={photo.parent}/weights.pth", *DENOISE, *words)
    printed = capsys.readouterr().out
    assert "self-ensemble x8 at sigma 15: " in printed
    assert "self-ensemble x8 at sigma 25: " in printed
    assert printed.count("ms_ssim was not computed: the photos are too small") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("benchmark=jpeg", "severities=10,20.5"), r"a quality is a whole number, got 20\.5"),
        (("benchmark=super_resolution", "severities=2,2.5"), r"a scale is a whole number, got 2\.5"),
        (("benchmark=super_resolution", "benchmark.scale=21"), "photo small: 20x23 pixels cannot be reduced"),
        (("benchmark=super_resolution", "benchmark.scale=10"), "photo small: a border of 10 pixels leaves"),
        (
            ("benchmark=degraded", "degradation@benchmark.degradation=real_esrgan_x4", "benchmark.border=12"),
            "photo small: a border of 12",
        ),
    ],
)
def test_what_a_photo_or_a_severity_cannot_be_is_named(
    words: tuple[str, ...], message: str, photo: Path
) -> None:
    method = "median" if words[0] == "benchmark=jpeg" else "bicubic"
    with pytest.raises(ValueError, match=message):
        evaluate(photo, f"classical={method}", *words, "processes=1")


@pytest.mark.parametrize("trained", ["low", "[1,2,3]", "[30,10]"])
def test_a_trained_range_is_a_range(trained: str, photo: Path) -> None:
    torch.save(DnCNN(depth=3, channels=4).state_dict(), photo.parent / "weights.pth")
    with pytest.raises(ValueError, match="trained must be a number or a range"):
        evaluate(photo, f"weights={photo.parent}/weights.pth", *DENOISE, f"trained={trained}")


@pytest.mark.parametrize("width", [0.01, 0.05, 0.3])
def test_a_disc_within_a_pixel_leaves_the_photo(width: float, photo: Path) -> None:
    kernel: Tensor = Deblur(root=str(photo), color="rgb", blur="disc", width=width).kernel(width, 0.0)
    assert kernel.sum() == kernel.max() == 1


def test_a_test_set_that_is_not_known_is_answered_with_those_that_are(photo: Path) -> None:
    with pytest.raises(
        ValueError, match=r"no benchmark/testset=nosuch\.\s+There are: bsd100, bsd68"
    ) as found:
        evaluate(photo, "classical=median", *DENOISE, "benchmark/testset=nosuch")
    assert "sigma25" not in str(found.value)
    with pytest.raises(ValueError, match="Did you mean benchmark/testset=kodak24"):
        evaluate(photo, "classical=median", *DENOISE, "benchmark/testset=kodak")


def test_pictures_of_an_earlier_evaluation_do_not_stay_beside_new_figures(photo: Path) -> None:
    """But files of the user's own in the same folder do."""
    median = ("classical=median", *DENOISE)
    images = evaluate(photo, *median, "images=true") / "images"
    assert [file.name for file in images.iterdir()] == ["small.png"]
    (images / "mine.png").write_bytes(b"")
    (photo / "small.png").rename(photo / "other.png")
    evaluate(photo, *median, "images=true")
    assert {file.name for file in images.iterdir()} == {"other.png", "mine.png"}
    evaluate(photo, "classical=median,wiener", *DENOISE, "images=true")
    assert {file.name for file in images.iterdir()} == {"mine.png"}
    assert (photo.parent / "out" / "wiener" / "images" / "other.png").exists()
    evaluate(photo, "classical=median,wiener", *DENOISE)
    assert not (photo.parent / "out" / "wiener" / "images").exists()
