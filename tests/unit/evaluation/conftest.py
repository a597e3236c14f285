"""Small photos, and networks whose answers are known, for the tests of the evaluation."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from restora.networks.base import Network


class Identity(Network):
    """Gives back what it gets; of one or three channels, with or without a condition."""

    def __init__(self, *, in_channels: int = 1, condition_channels: int = 0) -> None:
        super().__init__()
        self.in_channels = self.out_channels = in_channels
        self.condition_channels = condition_channels

    def restore(self, x, condition):
        return x if condition is None else x + condition


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three colour photos of odd sizes."""
    folder = tmp_path_factory.mktemp("photos")
    for name, photo in (("b", data.coffee()), ("a", data.chelsea()), ("c", data.astronaut())):
        side = 60 + 7 * len(list(folder.iterdir()))
        Image.fromarray(np.ascontiguousarray(photo[100 : 100 + side, 120:185])).save(folder / f"{name}.png")
    return folder
