"""Photos restored together are those restored one by one."""

import numpy as np
import pytest
from run_folders import tiny_network

from restora.artifact.photo_pixels import restore_photo, restore_photos
from restora.artifact.restorer import Restorer
from restora.photos.files import Photo


@pytest.mark.parametrize("takes", [1, 3])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_batch_gives_what_each_gives_alone(takes: int, channels: int, dtype: type) -> None:
    rng = np.random.default_rng(0)
    top = int(np.iinfo(dtype).max)
    photos = [
        Photo(rng.integers(0, top + 1, (30, 22, channels)).astype(dtype), alpha)
        for alpha in (None, rng.integers(0, 2, (30, 22)).astype(dtype) * top, None)
    ]
    restorer = Restorer(network=tiny_network(in_channels=takes), device="cpu", tile=0)
    for together, photo in zip(restore_photos(photos, restorer), photos, strict=True):
        alone = restore_photo(photo, restorer)
        assert together.pixels.dtype == dtype
        assert np.abs(together.pixels.astype(int) - alone.pixels).max() <= 1
        assert (together.alpha is None) == (photo.alpha is None)
