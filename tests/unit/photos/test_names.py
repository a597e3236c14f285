"""Every photo has a name of its own, and so has every file that is written for it."""

import os
from pathlib import Path
from urllib.parse import unquote

import pytest

from restora.photos.names import LONGEST, file_stem, unique_names

ROOT = Path("photos")
FILES = [
    ["a.png", "a.jpg", "a.bmp"],
    ["x_a.png", "x/a.png"],
    ["a.png", "a.jpg", "a.png.bmp"],
    ["shot.v1.png", "shot.v2.png"],
    ["x/a.png", "x_a.png.jpg", "x_a.png"],
    ["x/y/a.png", "x_y/a.png", "x/y_a.png"],
    ["b%2Fa.png", "b/a.png", "b_a.png"],
    [os.fsdecode(b"\xff.png"), "%FF.png", "\u00fc.png", "u\u0308.png"],
    [f"{'n' * 240}{end}" for end in (".png", ".jpg", "1.png", "2.png")],
    [".hidden/a.png", "..a.png", "[/raw].png", "=1+1.png", "a\nb.png", "a b.png"],
]


@pytest.mark.parametrize("files", FILES, ids=lambda files: files[0][:12])
def test_names_and_stems_are_unique_short_and_read_back(files: list[str]) -> None:
    names = unique_names([ROOT / file for file in files], ROOT)
    stems = [file_stem(name) for name in names]
    assert len(set(names)) == len(set(stems)) == len(files)
    for name, stem in zip(names, stems, strict=True):
        name.encode()  # every name is text
        assert len(os.fsencode(stem)) <= LONGEST
        assert "/" not in stem
        assert not stem.startswith(".")
        assert (unquote(stem) == name) == (len(name) <= LONGEST)


def test_usual_names_stay_as_they_are() -> None:
    paths = [ROOT / "0001.png", ROOT / "Kodak" / "kodim 01.png"]
    assert unique_names(paths, ROOT) == ["0001", "Kodak_kodim 01"]
    assert [file_stem(name) for name in ("0001", "Kodak_kodim 01", "sky_1920x1080")] == [
        "0001",
        "Kodak_kodim 01",
        "sky_1920x1080",
    ]
