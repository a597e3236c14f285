"""The sheet of `restora evaluate compare=`: what is seen of a photo."""

import numpy as np
import pytest
from PIL import Image
from run_folders import photo

from restora.apps.compare_sheet import SIDE, _centre, compare_sheet
from restora.evaluation.results import Result
from restora.photos.reading import read_photo


@pytest.mark.parametrize("turn", [1, 3, 6])
def test_the_clean_photo_is_seen_as_it_was_scored(turn, tmp_path):
    """Upright, like the photos that the methods restored."""
    tag = Image.Exif()
    tag[0x0112] = turn
    Image.fromarray(photo(SIDE + 40, SIDE + 8)).save(tmp_path / "a.png", exif=tag)
    pixels = read_photo(tmp_path / "a.png")
    top, left = ((side - SIDE) // 2 for side in pixels.shape[:2])
    np.testing.assert_array_equal(_centre(tmp_path / "a.png"), pixels[top : top + SIDE, left : left + SIDE])
    Image.fromarray(photo(20, 30)).save(tmp_path / "b.png")
    assert _centre(tmp_path / "b.png").shape == (20, 30, 3)


def test_photos_that_an_earlier_evaluation_left_are_not_shown(tmp_path):
    methods = {}
    for method in "ab":
        images = tmp_path / method / "images"
        images.mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(images / "left.png")
        methods[method] = [Result(method, {}, [{"name": "scored", "psnr": 30.0}])]
    folders = [str(tmp_path / method) for method in methods]
    assert compare_sheet(methods, folders) is None
    for folder in folders:
        Image.new("RGB", (8, 8)).save(f"{folder}/images/scored.png")
    assert compare_sheet(methods, folders) is not None
