"""What benchmarks hand out: the field's conventions, fixed inputs, and errors that name the setting."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from run_folders import write_run
from scored_planes import scored_planes

from restora.apps.evaluate_plan import _classical, _held_out, _reference
from restora.artifact.sources import open_source
from restora.degradations.missing.brush_strokes import BrushStrokes
from restora.degradations.noise.gaussian_noise import GaussianNoise
from restora.degradations.sampling.downsample import Downsample
from restora.evaluation.benchmarks.base import Benchmark, Intake, whole_at_random
from restora.evaluation.benchmarks.deblur import Deblur
from restora.evaluation.benchmarks.degraded import Degraded, Inpaint
from restora.evaluation.benchmarks.denoise import Denoise
from restora.evaluation.benchmarks.jpeg import Jpeg
from restora.evaluation.benchmarks.paired import Paired
from restora.evaluation.benchmarks.super_resolution import SuperResolution
from restora.image import luminance
from restora.metrics.image import psnr
from restora.photos.reading import read_photo
from restora.words import AGAINST_NOISY


def pixels(folder: Path, name: str) -> np.ndarray:
    return np.array(Image.open(folder / f"{name}.png"))


def benchmarks(root: Path) -> list[Benchmark]:
    folder = str(root)
    return [
        Denoise(root=folder, color="rgb", sigma=25),
        Denoise(root=folder, color="gray", sigma=[0, 50], seed_stride=1),
        SuperResolution(root=folder, color="y", scale=3),
        Jpeg(root=folder, color="rgb", quality=10),
        Jpeg(root=folder, color="y", quality=[10, 40]),
        Deblur(root=folder, color="rgb", width=2.0, blur="disc"),
        Deblur(root=folder, color="gray", width=[3, 9], blur="motion"),
        Degraded(root=folder, color="rgb", degradation=GaussianNoise(sigma=(5, 50))),
        Inpaint(root=folder, color="rgb", degradation=BrushStrokes()),
    ]


@pytest.mark.parametrize("place", range(9))
def test_inputs_are_the_same_every_time_and_fit_their_photo(place: int, photo_folder: Path) -> None:
    first, again = (benchmarks(photo_folder)[place] for _ in range(2))
    assert first.names == ["a", "b", "c"]
    for index in (2, 0, 1):
        one, other = first.observe(index, Intake()), again.observe(index, Intake())
        torch.testing.assert_close(one.degraded, other.degraded, rtol=0, atol=0)
        assert one.facts == other.facts
        assert one.clean.shape == one.baseline.shape
        assert [side * one.scale for side in one.degraded.shape[-2:]] == list(one.clean.shape[-2:])
        restored, clean = scored_planes(first, one.clean, one)
        torch.testing.assert_close(restored, clean, rtol=0, atol=1e-6)
        assert 5 < psnr(*scored_planes(first, one.baseline, one)).item() < 60


def test_noise_is_the_papers_stream_and_is_not_clipped(photo_folder: Path) -> None:
    benchmark = Denoise(root=str(photo_folder), color="rgb", sigma=25)
    clean = pixels(photo_folder, "b").astype(np.float32) / 255
    np.random.seed(0)  # noqa: NPY002 - the papers' own words
    expected = clean + np.random.normal(0, 25 / 255, clean.shape)  # noqa: NPY002
    observation = benchmark.observe(1, Intake(3, 1))
    np.testing.assert_allclose(observation.degraded[0].permute(1, 2, 0).numpy(), expected, atol=1e-6)
    assert observation.degraded.min() < 0
    assert observation.condition is not None
    assert observation.condition.shape == (1, 1, *clean.shape[:2])
    torch.testing.assert_close(observation.condition.unique(), torch.tensor([25 / 255]))


def test_a_stride_gives_each_place_its_own_noise(photo_folder: Path) -> None:
    same = Denoise(root=str(photo_folder), color="gray", sigma=25)
    own = Denoise(root=str(photo_folder), color="gray", sigma=25, seed_stride=1)

    def noise(benchmark: Denoise, index: int) -> torch.Tensor:
        observation = benchmark.observe(index, Intake())
        return (observation.degraded - observation.clean).flatten()[:100]

    torch.testing.assert_close(noise(same, 0), noise(same, 1), rtol=0, atol=1e-6)
    torch.testing.assert_close(noise(same, 0), noise(own, 0), rtol=0, atol=0)
    assert (noise(own, 0) - noise(own, 1)).abs().mean() > 0.05


def test_networks_may_be_conditioned_on_another_noise_level(photo_folder: Path) -> None:
    observation = Denoise(root=str(photo_folder), color="gray", sigma=25, conditioned_sigma=50).observe(
        0, Intake()
    )
    assert observation.sigma == 25
    torch.testing.assert_close(observation.condition.max().item() * 255, 50.0)


def test_super_resolution_reduces_the_cut_photo_to_8_bits(photo_folder: Path) -> None:
    benchmark = SuperResolution(root=str(photo_folder), color="y", scale=4)
    observation = benchmark.observe(0, Intake(3, 4))
    height, width = (side // 4 * 4 for side in pixels(photo_folder, "a").shape[:2])
    assert observation.clean.shape == (1, 3, height, width)
    levels = observation.degraded * 255
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-4)
    restored, clean = scored_planes(benchmark, observation.baseline, observation)
    assert restored.shape == clean.shape == (1, 1, height - 8, width - 8)
    torch.testing.assert_close(clean, luminance(observation.clean)[..., 4:-4, 4:-4])


def test_luminance_networks_get_y_and_keep_the_bicubic_colours(photo_folder: Path) -> None:
    colour = SuperResolution(root=str(photo_folder), color="rgb", scale=2)
    given = colour.observe(0, Intake(3, 1))
    observation = colour.observe(0, Intake(1, 1))
    torch.testing.assert_close(observation.degraded, luminance(given.degraded))
    restored, _ = scored_planes(colour, luminance(observation.baseline), observation)
    expected, _ = scored_planes(colour, observation.baseline, observation)
    assert (restored - expected).abs().max() <= 1.01 / 255  # the bicubic photo itself, up to rounding
    small = colour.observe(0, Intake(1, 2))
    torch.testing.assert_close(small.degraded, luminance(colour.observe(0, Intake(3, 2)).degraded))


def test_y_of_a_luminance_network_is_not_rounded(photo_folder: Path) -> None:
    benchmark = SuperResolution(root=str(photo_folder), color="y", scale=2)
    observation = benchmark.observe(0, Intake(1, 1))
    answer = observation.degraded + 0.3 / 255
    restored, _ = scored_planes(benchmark, answer, observation)
    torch.testing.assert_close(restored, answer[..., 2:-2, 2:-2])


def test_jpeg_is_libjpegs(photo_folder: Path) -> None:
    benchmark = Jpeg(root=str(photo_folder), color="rgb", quality=30)
    buffer = io.BytesIO()
    Image.open(photo_folder / "c.png").save(buffer, "JPEG", quality=30, subsampling="4:2:0")
    expected = np.array(Image.open(buffer))
    observed = benchmark.observe(2, Intake()).degraded[0].permute(1, 2, 0).mul(255).round().byte().numpy()
    np.testing.assert_array_equal(observed, expected)


def test_every_quality_of_a_range_is_as_likely() -> None:
    """The ends too, which rounding a uniform number would draw half as often."""
    drawn = np.bincount([whole_at_random(0, place, 10, 14) for place in range(2000)])
    assert drawn[:10].sum() == 0
    assert len(drawn) == 15
    assert (abs(drawn[10:] - 400) < 80).all()  # 4.5 standard deviations; the ends would be 250


def test_jpeg_of_one_plane_is_a_grey_jpeg(photo_folder: Path) -> None:
    observation = Jpeg(root=str(photo_folder), color="y", quality=10).observe(0, Intake(1, 1))
    assert observation.degraded.shape[1] == observation.clean.shape[1] == 1
    assert observation.clean.min() > 15 / 255
    colour = Jpeg(root=str(photo_folder), color="y", quality=10)
    fed = colour.observe(0, Intake(3, 1))
    restored, clean = scored_planes(colour, fed.degraded, fed)
    assert fed.degraded.shape[1] == 3
    assert restored.shape[1] == clean.shape[1] == 1


@pytest.mark.parametrize("blur", ["gaussian", "motion", "disc"])
def test_kernels_are_centred_and_as_wide_as_they_say(blur: str, photo_folder: Path) -> None:
    width = {"gaussian": 1.6, "motion": 9.0, "disc": 3.0}[blur]
    benchmark = Deblur(root=str(photo_folder), color="rgb", width=width, blur=blur, angle=0.0, sigma=0.0)
    kernel = benchmark.observe(0, Intake()).kernel
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    offsets = np.arange(len(kernel)) - len(kernel) // 2
    across, down = kernel.sum(axis=0), kernel.sum(axis=1)
    assert (across @ offsets, down @ offsets) == pytest.approx((0, 0), abs=1e-5)
    variance = {"gaussian": 1.6**2, "motion": 9**2 / 12, "disc": 3**2 / 4}[blur]
    assert across @ offsets**2 == pytest.approx(variance, rel=0.05, abs=0.1)
    assert down @ offsets**2 == pytest.approx(0 if blur == "motion" else variance, rel=0.05, abs=0.1)


def test_a_degradation_that_reduces_is_compared_with_what_enlarges(photo_folder: Path) -> None:
    benchmark = Degraded(root=str(photo_folder), color="rgb", degradation=Downsample(scale=2))
    (method,), _ = _classical(["lanczos"], benchmark)
    observation = benchmark.observe(0, Intake())
    restored, clean = scored_planes(benchmark, method.restore(observation), observation)
    assert psnr(restored, clean).item() > 20
    with pytest.raises(ValueError, match="no classical method bm3d for super_resolution .available: bicubic"):
        _classical(["bm3d"], benchmark)


def test_inpainting_puts_the_known_pixels_back(photo_folder: Path) -> None:
    benchmark = Inpaint(root=str(photo_folder), color="rgb", degradation=BrushStrokes())
    observation = benchmark.observe(0, Intake())
    restored, clean = scored_planes(benchmark, torch.zeros_like(observation.clean), observation)
    known = observation.mask.expand_as(clean) > 0
    torch.testing.assert_close(restored[known], clean[known], rtol=0, atol=1e-6)
    assert (restored[~known] == 0).all()
    assert observation.facts["lost"] == pytest.approx((~known).float().mean().item(), abs=1e-6)


def test_inpainting_refuses_a_degradation_without_a_mask(photo_folder: Path) -> None:
    benchmark = Inpaint(root=str(photo_folder), color="rgb", degradation=GaussianNoise(sigma=25))
    with pytest.raises(ValueError, match="degradation@benchmark.degradation=inpaint_brush"):
        benchmark.observe(0, Intake())


def test_pairs_go_by_name_or_by_order(photo_folder: Path, tmp_path: Path) -> None:
    for name in "abc":
        Image.fromarray(pixels(photo_folder, name) // 2).save(tmp_path / f"{name}.png")
    observation = Paired(root=str(photo_folder), degraded_root=str(tmp_path), color="rgb").observe(
        1, Intake()
    )
    assert psnr(observation.degraded, observation.clean / 2).item() > 48
    for name in "abc":
        (tmp_path / f"{name}.png").rename(tmp_path / f"{name}_bad.png")
    roots = {"root": str(photo_folder), "degraded_root": str(tmp_path), "color": "rgb"}
    with pytest.raises(ValueError, match="a_bad.png(.|\n)*benchmark.degraded_suffix=_bad"):
        Paired(**roots).check()
    for options in ({"degraded_suffix": "_bad"}, {"pair_by": "order"}):
        renamed = Paired(**roots, **options).observe(1, Intake())
        torch.testing.assert_close(renamed.degraded, observation.degraded)
    (tmp_path / "a_bad.png").rename(tmp_path / "d_bad.png")
    with pytest.raises(ValueError, match="d_bad.png"):
        Paired(**roots, degraded_suffix="_bad").check()
    (tmp_path / "d_bad.png").unlink()
    with pytest.raises(ValueError, match="3 clean and 2 degraded photos cannot be paired by order"):
        Paired(**roots, pair_by="order").check()


def test_sides_of_pairs_may_be_rounded_up_as_in_training(photo_folder: Path, tmp_path: Path) -> None:
    for name in "abc":
        Image.fromarray(pixels(photo_folder, name)).reduce(2).save(tmp_path / f"{name}.png")
    benchmark = Paired(root=str(photo_folder), degraded_root=str(tmp_path), color="rgb")
    benchmark.check()
    observation = benchmark.observe(0, Intake())
    height, width = (side // 2 for side in pixels(photo_folder, "a").shape[:2])
    assert read_photo(tmp_path / "a.png").shape[:2] == (height + 1, width + 1)
    assert observation.degraded.shape[-2:] == (height, width)
    assert observation.clean.shape[-2:] == observation.baseline.shape[-2:] == (2 * height, 2 * width)
    missing = Paired(root=str(photo_folder), degraded_root=str(tmp_path / "no"), color="rgb")
    with pytest.raises(ValueError, match=r"benchmark\.degraded_root"):
        missing.check()


def test_a_pair_whose_sizes_do_not_agree_is_named_at_the_start(photo_folder: Path, tmp_path: Path) -> None:
    for name in "abc":
        shrunk = pixels(photo_folder, name)[: 40 if name == "b" else None]
        Image.fromarray(shrunk).save(tmp_path / f"{name}.png")
    with pytest.raises(ValueError, match="b.png is .*whole factor"):
        Paired(root=str(photo_folder), degraded_root=str(tmp_path), color="rgb").check()


@pytest.mark.parametrize(
    ("color", "intake", "message"),
    [
        ("rgb", Intake(1, 1), "benchmark.color=gray"),
        ("gray", Intake(3, 1, frames=5), "benchmark.color=rgb"),
        ("gray", Intake(4, 1), "benchmark.color=rgb"),
    ],
)
def test_channels_that_do_not_fit_name_the_setting(color, intake, message, photo_folder: Path) -> None:
    with pytest.raises(ValueError, match=message):
        Denoise(root=str(photo_folder), color=color, sigma=25).observe(0, intake)


def test_a_network_of_another_scale_is_refused(photo_folder: Path) -> None:
    with pytest.raises(ValueError, match="benchmark.scale=3"):
        SuperResolution(root=str(photo_folder), color="y", scale=2).observe(0, Intake(3, 3))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: Denoise(root=root, color="rgb", sigma=-1), "benchmark.sigma"),
        (lambda root: Jpeg(root=root, color="rgb", quality=0), "benchmark.quality"),
        (lambda root: SuperResolution(root=root, color="y", scale=0), "benchmark.scale"),
        (lambda root: Deblur(root=root, color="rgb", width=1, blur="box"), "gaussian, motion, disc"),
        (lambda _: Denoise(root="", color="rgb", sigma=25), "benchmark/testset"),
    ],
)
def test_wrong_settings_fail_before_the_first_photo(make, message: str, photo_folder: Path) -> None:
    with pytest.raises(ValueError, match=message):
        make(str(photo_folder))


def test_held_out_photos_whose_partners_are_noisy_are_called_that(tmp_path: Path) -> None:
    """By the table, the files and a note; results of photos with clean partners stay comparable with older
    ones."""
    clean, noisy = (
        _held_out(open_source(write_run(tmp_path / each, reference=each))) for each in ("clean", "noisy")
    )
    assert noisy.title == f"{clean.title}, against noisy photos"
    assert noisy.describe() == {**clean.describe(), "reference": "noisy"}
    assert _reference(noisy) == [f"all figures are {AGAINST_NOISY}"]
    assert _reference(clean) == []
