"""Copies are found through compression, scaling, greyscale and turning; other photos are not taken for
copies."""

import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from restora.evaluation.leakage import (
    Fingerprints,
    find_leaks,
    fingerprints,
    fingerprints_of_files,
    known_testsets,
    near_duplicates,
)
from restora.photos.reading import list_photos


def jpeg(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=10)
    return Image.open(buffer)


ALTERATIONS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG at quality 10": jpeg,
    "half size": lambda image: image.resize((image.width // 2, image.height // 2)),
    "greyscale": lambda image: image.convert("L"),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "turned": lambda image: image.transpose(Image.Transpose.ROTATE_90),
    "brighter": lambda image: image.point(lambda value: min(255, int(value * 1.2))),
}


@pytest.fixture(scope="module")
def photos() -> dict[str, np.ndarray]:
    """Six photos that have nothing to do with one another, one of them three times as large as the others."""
    names = ("astronaut", "chelsea", "coffee", "rocket", "camera")
    found = {name: getattr(data, name)() for name in names}
    found["motorcycle"] = np.kron(data.stereo_motorcycle()[0], np.ones((3, 3, 1), np.uint8))
    return {name: photo if photo.ndim == 3 else photo[..., None] for name, photo in found.items()}


def of_testsets(folder: Path) -> dict[str, Fingerprints]:
    return {name: fingerprints_of_files(files) for name, files in known_testsets(folder).items()}


@pytest.mark.parametrize("alteration", ALTERATIONS)
def test_altered_copies_are_found_and_nothing_else(alteration: str, photos: dict[str, np.ndarray]) -> None:
    altered = {}
    for name, photo in photos.items():
        image = np.asarray(ALTERATIONS[alteration](Image.fromarray(photo.squeeze())))
        altered[name] = image if image.ndim == 3 else image[..., None]
    leaks = near_duplicates(fingerprints(photos.items()), fingerprints(altered.items()))
    assert sorted((leak.training, leak.test) for leak in leaks) == sorted((name, name) for name in photos)


def test_the_report_counts_and_names(photos: dict[str, np.ndarray], tmp_path: Path) -> None:
    for name in ("chelsea", "coffee"):
        folder = tmp_path / "testsets" / "Cats"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photos[name]).save(folder / f"{name}.png")
    (tmp_path / "testsets" / "Cats" / "broken.png").write_bytes(b"no photo")
    training = fingerprints((name, photos[name]) for name in ("astronaut", "chelsea"))
    report = find_leaks(training, of_testsets(tmp_path / "testsets"))
    assert report.testsets == {"Cats": 2}
    assert report.lines() == ["1 of 2 photos of Cats are among the training photos: chelsea is chelsea.png"]
    assert report.as_dict()["leaks"] == {"Cats": [{"training": "chelsea", "test": "chelsea.png"}]}


def test_a_clean_report_says_what_was_compared(photos: dict[str, np.ndarray], tmp_path: Path) -> None:
    (tmp_path / "testsets" / "Set1").mkdir(parents=True)
    Image.fromarray(photos["coffee"]).save(tmp_path / "testsets" / "Set1" / "a.png")
    training = fingerprints([("astronaut", photos["astronaut"])])
    report = find_leaks(training, of_testsets(tmp_path / "testsets"))
    assert report.lines() == ["no near-duplicate of the 1 training photos in Set1 (1)"]


def test_a_half_unpacked_set_is_no_test_set(tmp_path: Path) -> None:
    for name in ("Set1", ".Set2.draft"):
        (tmp_path / name).mkdir()
        Image.new("L", (8, 8)).save(tmp_path / name / "a.png")
    (tmp_path / "Empty").mkdir()
    assert list(known_testsets(tmp_path)) == ["Set1"]


def test_nothing_to_compare_is_said(tmp_path: Path) -> None:
    assert known_testsets(tmp_path / "testsets") == {}
    assert "no test set was available" in find_leaks(fingerprints([]), {}).lines()[0]
    assert near_duplicates(Fingerprints([], np.zeros((0, 32, 32), np.float32)), fingerprints([])) == []


@pytest.mark.slow
def test_bsd68_is_all_of_it_in_bsds500s_validation_photos(development_data: Path) -> None:
    """And none of it in the photos that are trained on; the woman of Set5 is one of those."""
    testsets = of_testsets(development_data / "testsets")
    bsds = development_data / "bsds500"
    validation = fingerprints_of_files(list_photos(bsds / "val"))
    training = fingerprints_of_files(list_photos(bsds / "train") + list_photos(bsds / "test"))
    assert len({leak.test for leak in near_duplicates(validation, testsets["BSD68"])}) == 68
    report = find_leaks(training, {name: testsets[name] for name in ("BSD68", "Set5")})
    assert report.testsets == {"BSD68": 68, "Set5": 5}
    assert [(leak.training, leak.test) for leak in report.leaks.pop("Set5")] == [
        ("302003.jpg", "woman_GT.png")
    ]
    assert report.leaks == {}


@pytest.mark.slow
def test_many_photos_are_compared_in_a_moment(photos: dict[str, np.ndarray]) -> None:
    """100,000 training photos against a test set: the hashes are compared in blocks, 8 bytes a photo."""
    random = np.random.default_rng(0)
    known = fingerprints(photos.items())
    noise = random.standard_normal((20_000, 32, 32)).astype(np.float32)
    noise /= np.linalg.norm(noise, axis=(1, 2), keepdims=True)
    crowd = np.concatenate([noise, noise[:, ::-1], noise[:, :, ::-1], -noise, -noise[:, ::-1]])
    names = [str(number) for number in range(len(crowd))]
    training = Fingerprints([*names, *known.names], np.concatenate([crowd, known.thumbnails]))
    started = time.perf_counter()
    leaks = near_duplicates(training, known)
    assert time.perf_counter() - started < 20
    assert sorted((leak.training, leak.test) for leak in leaks) == sorted((name, name) for name in photos)


def test_photos_past_the_deadline_are_left_out_and_the_report_says_so(photos: dict[str, np.ndarray]) -> None:
    training = fingerprints(photos.items(), deadline=time.monotonic() - 1)
    report = find_leaks(training, {"All": fingerprints(photos.items())}, training_total=len(photos))
    assert report.training_photos == 1
    assert report.lines()[0] == "only 1 of 6 training photos were compared (time limit)"
    assert report.as_dict()["training_total"] == 6
    assert list(report.leaks) == ["All"]
