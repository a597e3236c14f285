"""Small photos for the tests of the evaluation."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three colour photos of odd sizes."""
    folder = tmp_path_factory.mktemp("photos")
    for name, photo in (("b", data.coffee()), ("a", data.chelsea()), ("c", data.astronaut())):
        side = 60 + 7 * len(list(folder.iterdir()))
        Image.fromarray(np.ascontiguousarray(photo[100 : 100 + side, 120:185])).save(folder / f"{name}.png")
    return folder
