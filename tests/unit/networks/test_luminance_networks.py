"""SRCNN, FSRCNN, ESPCN and VDSR: MATLAB's bicubic, luminance alone restored, published names and figures."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.color import rgb2ycbcr, ycbcr2rgb

from restora.image import resize
from restora.networks.espcn import ESPCN
from restora.networks.fsrcnn import FSRCNN
from restora.networks.layers.luminance import BicubicEnlargement, LuminanceNetwork, luma
from restora.networks.srcnn import SRCNN
from restora.networks.vdsr import VDSR
from restora.networks.weights import load_weights

CLASSES = (SRCNN, FSRCNN, ESPCN, VDSR)
# dB of butterfly in the evaluation (in numpy, with these weights) that gave the published means over Set5
BUTTERFLY = [(2, 34.689), (3, 29.985), (4, 27.160)]


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (13, 8)])
def test_enlargement_is_imresize(scale: int, size: tuple[int, int]) -> None:
    x = torch.rand(2, 3, *size)
    enlarged = BicubicEnlargement(scale=scale, round_8bit=False)(x)
    matrices = resize(x, size[0] * scale, size[1] * scale, kernel="bicubic")
    torch.testing.assert_close(enlarged, matrices, atol=1e-6, rtol=0)


def test_rounding_takes_halves_up() -> None:
    x = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2) / 255
    enlarged = BicubicEnlargement(scale=2, round_8bit=True)(x.expand(1, 1, 4, 2)) * 255
    # Keys' weights give -0.0078, 0.2266, 0.7734, 1.0078 in the row
    torch.testing.assert_close(enlarged[0, 0, 0], torch.tensor([0.0, 0.0, 1.0, 1.0]))


def test_luma_is_that_of_bt601() -> None:
    rgb = np.random.default_rng(0).random((5, 6, 3))
    ours = luma(torch.from_numpy(rgb).permute(2, 0, 1)[None])[0, 0].numpy() * 255
    np.testing.assert_allclose(ours, rgb2ycbcr(rgb)[..., 0], atol=1e-3)


@pytest.mark.parametrize("cls", CLASSES)
def test_colour_keeps_the_bicubic_chroma_and_takes_the_restored_luma(cls: type[LuminanceNetwork]) -> None:
    torch.manual_seed(0)
    network = cls(scale=3, in_channels=3).eval()
    x = torch.rand(1, 3, 6, 7)
    with torch.no_grad():
        enlarged = network.enlarge(x)
        luminance = network.predict(luma(enlarged) if network.on_enlarged else luma(x))
        restored = network(x)
    ycbcr = rgb2ycbcr(enlarged[0].permute(1, 2, 0).double().numpy())
    ycbcr[..., 0] = luminance[0, 0].double().numpy() * 255
    np.testing.assert_allclose(restored[0].permute(1, 2, 0), ycbcr2rgb(ycbcr), atol=1e-4)


@pytest.mark.parametrize("cls", CLASSES)
def test_one_channel_is_luminance_and_all_channels_can_be_restored(cls: type[LuminanceNetwork]) -> None:
    grey = cls(scale=2, in_channels=1).eval()
    assert grey(torch.rand(1, 1, 5, 4)).shape == (1, 1, 10, 8)
    colour = cls(scale=2, in_channels=3, luminance=False).eval()
    assert colour(torch.rand(1, 3, 5, 4)).shape == (1, 3, 10, 8)
    together = cls(scale=2, in_channels=3)
    assert {k: v.shape for k, v in together.state_dict().items()} == {
        k: v.shape for k, v in grey.state_dict().items()
    }
    with pytest.raises(ValueError, match=r"network\.in_channels"):
        cls(scale=2, in_channels=4)


@pytest.mark.parametrize(
    ("network", "names"),
    [
        (SRCNN(), ["conv1.weight", "conv3.bias"]),
        (FSRCNN(), ["first_part.0.weight", "first_part.1.weight", "mid_part.10.weight", "last_part.bias"]),
        (ESPCN(), ["first_part.0.weight", "first_part.2.bias", "last_part.0.weight"]),
        (VDSR(), ["input.weight", "residual_layer.17.conv.weight", "output.weight"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_published_names(network: LuminanceNetwork, names: list[str]) -> None:
    assert set(names) <= set(network.state_dict())
    inferred = type(network).infer_arguments(network.state_dict())
    assert inferred is not None
    rebuilt = type(network)(**({"scale": network.scale} | inferred))
    assert {k: v.shape for k, v in rebuilt.state_dict().items()} == {
        k: v.shape for k, v in network.state_dict().items()
    }


def test_weights_without_biases_are_as_many_as_the_papers_say() -> None:
    def convolution_weights(network: torch.nn.Module) -> int:
        return sum(p.numel() for p in network.parameters() if p.ndim == 4)

    assert convolution_weights(SRCNN(kernels=(9, 1, 5))) == 8_032
    assert convolution_weights(SRCNN()) == 57_184
    assert convolution_weights(FSRCNN()) == 12_464
    assert convolution_weights(FSRCNN(channels=32, shrunk=5, mappings=1)) == 3_937


def test_vdsr_at_scale_one_adds_a_residual_to_the_photo_it_gets() -> None:
    network = VDSR(scale=1, in_channels=1, depth=3)
    torch.nn.init.zeros_(network.output.weight)
    x = torch.randn(1, 1, 6, 5)
    assert torch.equal(network(x), x)


@pytest.mark.parametrize(("scale", "expected"), BUTTERFLY)
@pytest.mark.slow
def test_vdsr_gives_the_figure_of_its_published_weights(
    development_data: Path, scale: int, expected: float
) -> None:
    """37.592, 33.737 and 31.356 dB are the means of Set5 at x2, x3 and x4; here one of its photos."""
    network = VDSR(scale=scale).eval()
    load_weights(network, development_data / "weights" / "vdsr.safetensors")
    photo = np.asarray(Image.open(development_data / "testsets" / "Set5" / "butterfly_GT.png").convert("RGB"))
    height, width = (side // scale * scale for side in photo.shape[:2])
    clean = torch.from_numpy(photo[:height, :width].copy()).permute(2, 0, 1)[None] / 255
    small = (
        resize(clean, height // scale, width // scale, kernel="bicubic").mul(255).round().clamp(0, 255) / 255
    )
    with torch.no_grad():
        restored = network(small)
    error = (luma(restored) - luma(clean))[..., scale:-scale, scale:-scale].double()
    assert -10 * torch.log10(error.square().mean()).item() == pytest.approx(expected, abs=0.005)
