"""Small photos on the disk, and processes that work on them."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from restora.data.packing import PhotoFile

MakePhotos = Callable[..., list[PhotoFile]]
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def make_photos(tmp_path: Path) -> MakePhotos:
    """Writes `count` PNG files of random pixels below the test's folder; their sides differ."""

    def make(count: int, *, side: int = 40, folder: str = "photos") -> list[PhotoFile]:
        random = np.random.default_rng(count)
        made = []
        for index in range(count):
            path = tmp_path / folder / f"{index:04}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = random.integers(0, 256, (side + index % 3, side + 2 * (index % 5), 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path, compress_level=1)
            made.append(PhotoFile(path.stem, path))
        return made

    return make


@pytest.fixture
def start_python() -> Start:
    """Starts Python code in a process of its own, with text pipes; what still runs is killed in the end."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str, *arguments: object) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start  # type: ignore[misc]
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def folder(tmp_path: Path, make_photos: MakePhotos) -> Path:
    """Three photos to train on, three to validate, one to test."""
    for split, count in (("train", 3), ("val", 3), ("test", 1)):
        make_photos(count, side=48, folder=f"set/{split}")
    return tmp_path / "set"
