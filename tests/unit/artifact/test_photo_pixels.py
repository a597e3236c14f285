"""Which channels a network sees, and what depth and alpha become."""

import dataclasses
from typing import ClassVar

import numpy as np
import pytest
import torch
from run_folders import photo, tiny_network
from torch import Tensor, nn

from restora.artifact.model_folder import ModelDescription
from restora.artifact.photo_pixels import _known, fault_of_mask, restore_photo
from restora.artifact.restorer import Restorer
from restora.networks.base import Network
from restora.photos.files import Metadata, Photo


class Colourer(Network):
    """Grey in, three known multiples out; every pixel becomes s x s equal ones."""

    family: ClassVar[str] = "unet"
    tasks: ClassVar[tuple[str, ...]] = ("colourise",)

    def __init__(self, *, inputs: int = 1, outputs: int = 3, scale: int = 1) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.scale = inputs, outputs, scale
        self.gain = nn.Parameter(torch.tensor([1.0, 0.5, 0.25][:outputs]).view(1, -1, 1, 1))

    def restore(self, x: Tensor, condition: Tensor | None) -> Tensor:
        y = x.mean(1, keepdim=True) * self.gain
        return y.repeat_interleave(self.scale, 2).repeat_interleave(self.scale, 3)


def made(pixels, alpha=None):
    return Photo(np.ascontiguousarray(pixels), alpha, Metadata())


def restorer(network, **options):
    return Restorer(network=network, device="cpu", **options)


def test_grey_network_restores_each_channel_of_a_colour_photo():
    network = restorer(tiny_network(in_channels=1))
    colour = restore_photo(made(photo()), network).pixels
    assert colour.shape == photo().shape
    for channel in range(3):
        alone = restore_photo(made(photo()[..., channel : channel + 1]), network).pixels
        np.testing.assert_array_equal(colour[..., channel], alone[..., 0])


def test_colour_network_gives_grey_for_a_grey_photo():
    grey = photo()[..., :1]
    restored = restore_photo(made(grey), restorer(tiny_network())).pixels
    same = restore_photo(made(np.repeat(grey, 3, axis=2)), restorer(tiny_network())).pixels
    assert restored.shape == grey.shape
    assert np.abs(restored[..., 0].astype(float) - same.mean(axis=2)).max() <= 1


def test_colouriser_sees_luminance():
    restored = restore_photo(made(photo()), restorer(Colourer())).pixels
    luminance = photo() @ np.array([0.299, 0.587, 0.114])
    assert np.abs(restored - luminance[..., None] * [1, 0.5, 0.25]).max() <= 1
    assert restore_photo(made(photo()[..., :1]), restorer(Colourer())).pixels.shape == photo().shape


def test_colouriser_of_three_channels_gives_colour_for_a_grey_photo():
    network = Colourer(inputs=3)
    described = ModelDescription(
        name="c", task="colourise", family="unet", network={}, scale=1, in_channels=3, out_channels=3,
        condition_channels=0, size_multiple=1,
    )  # fmt: skip
    made_for_it = Restorer(network=network, device="cpu", description=described)
    grey = photo()[..., :1]
    coloured = restore_photo(made(grey), made_for_it).pixels
    assert np.abs(coloured - grey * np.array([1, 0.5, 0.25])).max() <= 1
    plain = Restorer(
        network=network, device="cpu", description=dataclasses.replace(described, task="denoise")
    )
    assert restore_photo(made(grey), plain).pixels.shape == grey.shape


def test_other_channel_counts_are_refused():
    with pytest.raises(ValueError, match="3 to 1 channels"):
        restore_photo(made(photo()), restorer(Colourer(inputs=3, outputs=1)))


def test_sixteen_bits_go_through_the_network_as_sixteen_bits():
    """A photo whose values lie between the steps of 8 bits comes out between them too."""
    deep = photo().astype(np.uint16) * 257 + 100
    network = tiny_network()
    for parameter in network.parameters():
        parameter.data.zero_()  # predicts no noise: the photo itself comes back
    restored = restore_photo(made(deep), restorer(network)).pixels
    assert restored.dtype == np.uint16
    np.testing.assert_array_equal(restored, deep)


def test_alpha_is_kept_and_enlarged_with_the_photo():
    alpha = np.tile(np.linspace(0, 255, 84).astype(np.uint8), (60, 1))
    same = restore_photo(made(photo(), alpha), restorer(tiny_network()))
    np.testing.assert_array_equal(same.alpha, alpha)
    larger = restore_photo(made(photo()[..., :1], alpha), restorer(Colourer(scale=3)))
    assert larger.pixels.shape == (180, 252, 3)
    assert larger.alpha.shape == (180, 252)
    assert np.abs(larger.alpha[1::3, 1::3].astype(float) - alpha).max() <= 1


def test_what_is_transparent_in_a_mask_is_not_lost():
    """Programs save a transparent background as white, too."""
    white = np.full((8, 8, 1), 255, np.uint8)
    painted = np.zeros((8, 8), np.uint8)
    assert str(fault_of_mask(made(white, painted))).startswith("marks nothing")
    painted[2:4] = 255
    known = _known(made(white, painted), made(white))[0, 0].numpy()
    np.testing.assert_array_equal(known == 0, painted == 255)
    turned = made(white, painted).turned_like(made(white))
    np.testing.assert_array_equal(turned.alpha, painted)


class Marking(Colourer):
    """Adds 0.8 to one pixel beside the upper left corner."""

    def restore(self, x: Tensor, condition: Tensor | None) -> Tensor:
        y = x.clone()
        y[..., 0, 1] += 0.8
        return y


def test_a_self_ensemble_is_the_mean_over_the_eight_symmetries():
    black = made(np.zeros((8, 8, 1), np.uint8))
    restored = restore_photo(black, restorer(Marking(outputs=1)), self_ensemble=True).pixels[..., 0]
    beside_corners = {(r, c) for r in (0, 1, 6, 7) for c in (0, 1, 6, 7) if (r in (0, 7)) != (c in (0, 7))}
    assert {(int(r), int(c)) for r, c in np.argwhere(restored)} == beside_corners
    assert set(restored[restored > 0].tolist()) <= {25, 26}
