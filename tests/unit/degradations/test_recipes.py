"""The ready recipes of conf/degradation are chains that do what their names say."""

import pytest
import torch
from omegaconf import OmegaConf
from photos import generator, grey_card, photos

from restora.config import build, parts
from restora.degradations.base import Degradation
from restora.degradations.blur.motion_blur import MotionBlur
from restora.degradations.blur.pixel_shift import PixelShift
from restora.degradations.compose.composition import Chain
from restora.degradations.compression.jpeg import jpeg
from restora.degradations.sampling.downsample import Downsample


def recipe(name: str, *changes: str) -> Degradation:
    node = OmegaConf.create(parts("degradation")[name])
    return build(OmegaConf.merge(node, OmegaConf.from_dotlist(list(changes))), "degradation")


def stage(degradation: Degradation, name: str) -> Degradation:
    assert isinstance(degradation, Chain)
    return degradation.stages[name]


def test_mild_is_one_blur_and_shift_for_all_and_photon_noise() -> None:
    mild = recipe("div2k_mild_x4")
    same = photos(1, 96, 112).expand(64, -1, -1, -1).contiguous()
    image = mild(same, generator(64)).image
    assert torch.allclose(image * 255, (image * 255).round(), atol=1e-4)
    expected = same[:1]
    for blur in (MotionBlur(length=9, angle=30), PixelShift(shift=1.5)):
        expected = blur(expected, generator(1)).image
    expected = Downsample(scale=4, round_8bit=False)(expected, generator(1)).image[0].clamp(0, 1)
    mean, variance = image.mean(0), image.var(0)
    inside = (expected > 0.1) & (expected < 0.85)
    assert (mean - expected)[inside].abs().mean() < 0.01  # 64 draws of noise of about 0.035
    ratio = (variance[inside] * 400 / expected[inside]).mean()
    assert ratio == pytest.approx(1, abs=0.05)


def test_wild_differs_from_photo_to_photo_in_blur_shift_and_noise() -> None:
    wild = recipe("div2k_wild_x4")
    same = photos(1, 96, 112).expand(24, -1, -1, -1).contiguous()
    params = wild.sample(tuple(same.shape), generator(24))
    assert params["motion"]["angle"].std() > 30
    assert params["motion"]["length"].std() > 2
    assert params["shift"]["shift"].abs().max() <= 2
    assert params["shift"]["shift"].std() > 0.7
    flat = wild(grey_card(0.5, batch=24, size=128), generator(24)).image
    # on a grey card only the noise is left, of a variance of its own
    levels = flat.flatten(1).var(1)
    photons = params["noise"]["photons"]
    assert torch.allclose(levels * photons / 0.5, torch.ones(24), atol=0.12)
    assert levels.max() > 2.5 * levels.min()


def test_blur_noise_jpeg_ends_on_what_the_codec_gives() -> None:
    chain = recipe("blur_noise_jpeg")
    clean = photos(3)
    params = chain.sample(tuple(clean.shape), generator(3))
    before = stage(chain, "blur").apply(clean, params["blur"])
    before = stage(chain, "noise").apply(before, params["noise"])
    assert torch.equal(chain.apply(clean, params), jpeg(before, params["jpeg"]["quality"]))


def test_old_photo_is_scratched_where_its_mask_says_and_nowhere_else() -> None:
    clean = photos(6, 80, 90)
    worn, mask = recipe("old_photo")(clean, generator(6))
    whole, nothing = recipe("old_photo", "stages.scratches.count=0", "stages.scratches.dust=0")(
        clean, generator(6)
    )
    assert mask is not None
    assert nothing is not None
    assert (nothing == 1).all()
    known = (mask == 1).expand_as(clean)
    assert (worn - whole)[known].abs().max() <= 1.01 / 255
    assert (worn - whole)[~known].abs().mean() > 0.05
    assert 0.7 < mask.mean() < 0.999
    assert torch.allclose(worn * 255, (worn * 255).round(), atol=1e-4)


def test_old_photo_fades_and_has_grain() -> None:
    quiet = recipe(
        "old_photo", "stages.scratches.count=0", "stages.scratches.dust=0", "stages.sepia.probability=0"
    )
    black = quiet(grey_card(0.02, batch=16, size=64), generator(16)).image.mean((2, 3))
    white = quiet(grey_card(1.0, batch=16, size=64), generator(16)).image.mean((2, 3))
    assert (black > 0.03).all()  # shadows lift
    assert (white[:, 2] < 0.96).all()  # paper has yellowed
    assert (white[:, 0] > 0.99).all()
    assert ((white - black).amax(1) < 0.95).all()
    middle = quiet(grey_card(0.5, batch=16, size=64), generator(16)).image
    assert (middle.flatten(2).std(2) > 2 / 255).all()


def test_bsrgan_loses_detail_and_draws_an_order_for_each_photo() -> None:
    bsrgan = recipe("bsrgan_x4")
    same = photos(1, 96, 112).expand(40, -1, -1, -1).contiguous()
    params = bsrgan.sample(tuple(same.shape), generator(40))
    assert len({tuple(order) for order in params["damage"]["order"].tolist()}) > 25
    image = bsrgan.apply(same, params)
    assert image.shape == (40, 3, 24, 28)
    plain = Downsample(scale=4)(same[:1], generator(1)).image

    def detail(x: torch.Tensor) -> torch.Tensor:
        return (x[..., 1:] - x[..., :-1]).abs().mean((1, 2, 3))

    late = params["noise"]["applied"]
    assert 0.15 < late.float().mean() < 0.55
    assert (detail(image[~late]) < detail(plain)).float().mean() > 0.9
    assert detail(image[late]).mean() > detail(image[~late]).mean()


@pytest.mark.parametrize("name", ["real_esrgan_x2", "real_esrgan_x4"])
def test_real_esrgan_draws_each_kernel_as_published(name: str) -> None:
    degradation = recipe(name)
    batch = 3000
    params = degradation.sample((batch, 3, 64, 64), generator(batch))
    for order in ("first", "second"):
        choice = params[order]["blur"]["choice"]
        shares = torch.bincount(choice, minlength=8).double() / batch
        expected = torch.tensor([0.405, 0.225, 0.108, 0.027, 0.108, 0.027, 0.0375, 0.0625])
        assert torch.allclose(shares, expected.double(), atol=0.03)
    assert params["second"]["blurred"].float().mean() == pytest.approx(0.8, abs=0.03)
    factor = params["first"]["factor"]
    assert (factor > 1).float().mean() == pytest.approx(0.2, abs=0.03)
    assert (factor < 1).float().mean() == pytest.approx(0.7, abs=0.03)
    assert 0.15 <= factor.min() < 0.2
    assert 1.45 < factor.max() <= 1.5
    assert params["first"]["grey"].float().mean() == pytest.approx(0.4, abs=0.03)
    assert params["rings"].float().mean() == pytest.approx(0.8, abs=0.03)
