"""Photos and keys for the tests of degradations."""

from pathlib import Path

import numpy as np
import skimage
import torch
from PIL import Image
from torch import Tensor

from restora.keyed import KeyedGenerator, sample_key


def photo(
    name: str = "astronaut.png", height: int = 96, width: int = 112, top: int = 40, left: int = 150
) -> Tensor:
    """A crop of a photo that scikit-image ships, (1,3,H,W) in [0,1]."""
    with Image.open(Path(skimage.__file__).parent / "data" / name) as image:
        pixels = np.asarray(image.convert("RGB"))[top : top + height, left : left + width]
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255


def photos(batch: int, height: int = 48, width: int = 60) -> Tensor:
    """Different crops, (B,3,H,W)."""
    return torch.cat([photo(height=height, width=width, top=12 * b, left=100 + 9 * b) for b in range(batch)])


def grey_card(value: float, batch: int = 1, size: int = 256, channels: int = 3) -> Tensor:
    return torch.full((batch, channels, size, size), value)


def generator(batch: int, seed: int = 3) -> KeyedGenerator:
    return KeyedGenerator(torch.tensor([sample_key(seed, index) for index in range(batch)]))
