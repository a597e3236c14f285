"""`restora evaluate` gives the figures that papers give, on their photos with the authors' weights."""

from pathlib import Path

import pytest
from test_evaluate import evaluate, per_image, summary

BICUBIC = {2: (33.682, 33.649), 3: (30.405, 30.386), 4: (28.431, 28.419)}
VDSR = {3: 33.737}
"""One scale, as a second tells nothing that bicubic's figures at each of them do not."""


@pytest.mark.parametrize("scale", BICUBIC)
def test_bicubic_on_set5_is_the_published_figure(scale: int, development_data: Path, tmp_path: Path) -> None:
    for rounded, figure in zip((False, True), BICUBIC[scale], strict=True):
        code = evaluate(
            "classical=bicubic", "benchmark=super_resolution", f"benchmark.scale={scale}", "processes=1",
            f"benchmark.root={development_data}/testsets/Set5", "benchmark.color=y",
            f"benchmark.y_rounded={rounded}", f"output={tmp_path}/{rounded}",
        )  # fmt: skip
        assert code == 0
        assert summary(tmp_path / str(rounded))["psnr"] == pytest.approx(figure, abs=0.002)


@pytest.mark.parametrize("scale", VDSR)
def test_vdsr_on_set5_is_the_published_figure(scale: int, development_data: Path, tmp_path: Path) -> None:
    code = evaluate(
        "network=vdsr", f"weights={development_data}/weights/vdsr.safetensors", "benchmark=super_resolution",
        f"benchmark.scale={scale}", f"benchmark.root={development_data}/testsets/Set5", "benchmark.color=y",
        f"output={tmp_path}",
    )  # fmt: skip
    assert code == 0
    assert summary(tmp_path)["psnr"] == pytest.approx(VDSR[scale], abs=0.002)


def dncnn_on_bsd68(data_dir: Path, output: Path, *words: str) -> Path:
    code = evaluate(
        "network=dncnn", f"weights={data_dir}/weights/dncnn_gray_sigma25.pth", "benchmark=bsd68_sigma25",
        f"data_dir={data_dir}", f"output={output}", *words,
    )  # fmt: skip
    assert code == 0
    return output


def figures(output: Path) -> list[list[str]]:
    return [[row[key] for key in ("name", "psnr", "ssim")] for row in per_image(output)]


@pytest.fixture(scope="module")
def first(development_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the first four photos of BSD68 get from one process in float32."""
    folder = tmp_path_factory.mktemp("first")
    return dncnn_on_bsd68(development_data, folder, "benchmark.limit=4", "processes=1")


def test_dncnn_on_the_first_photos_of_bsd68(first: Path) -> None:
    """The figures that a plain loop over `F.conv2d` with the same weights and noise gives."""
    three = [float(psnr) for _, psnr, _ in figures(first)[:3]]
    assert sum(three) / 3 == pytest.approx(28.8065, abs=0.002)


def test_two_processes_give_the_figures_of_one_process(
    first: Path, development_data: Path, tmp_path: Path
) -> None:
    dncnn_on_bsd68(development_data, tmp_path, "benchmark.limit=2", "processes=2")
    assert figures(tmp_path) == figures(first)[:2]
    for place, metric in enumerate(("psnr", "ssim"), 1):
        mean = sum(float(row[place]) for row in figures(first)[:2]) / 2
        assert summary(tmp_path)[metric] == pytest.approx(mean, abs=1e-6)


@pytest.mark.slow
def test_dncnn_on_bsd68_is_the_published_figure_and_in_bfloat16_that_of_every_photo(
    first: Path, development_data: Path, tmp_path: Path
) -> None:
    """All photos in bfloat16, and enough of them in float32 to see that each keeps its figure."""
    whole = summary(dncnn_on_bsd68(development_data, tmp_path, "precision=bf16"))
    assert whole["images"] == 68
    assert whole["psnr"] == pytest.approx(29.233, abs=0.004)
    rough = {name: float(psnr) for name, psnr, _ in figures(tmp_path)}
    change = [rough[name] - float(psnr) for name, psnr, _ in figures(first)]
    assert len(change) == 4
    assert any(change)
    assert max(map(abs, change)) < 0.01
    assert abs(sum(change) / 4) < 0.002
