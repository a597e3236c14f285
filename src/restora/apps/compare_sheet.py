"""A sheet of one photo restored by each method of a comparison, from photos kept by `images=true`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console

from restora.apps.contact_sheet import Cell, Pixels, Row, contact_sheet, encoded
from restora.evaluation.comparison import read_methods
from restora.evaluation.results import Result
from restora.files import write_whole
from restora.photos.names import file_stem
from restora.photos.reading import list_photos, read_photo

SIDE, COLUMNS = 200, 4
"""Side in pixels of the centre crop that is shown, and pictures in a row."""


def write_sheet(folders: Sequence[str], output: Path, console: Console) -> None:
    """Writes sheet.jpg into `output` if there is a photo that all methods have kept."""
    sheet = compare_sheet(read_methods(folders), folders)
    if sheet is not None:
        path = output / "sheet.jpg"
        write_whole(path, encoded(sheet, "JPEG", quality=70))
        console.print(f"one photo by all: {path}", markup=False)


def compare_sheet(methods: dict[str, list[Result]], folders: Sequence[str]) -> Image.Image | None:
    """The clean photo, and each method's result with its PSNR; None if the methods share no kept photo.

    It is the first scored photo that all methods have kept (an earlier evaluation may have left others). Of
    several seeds, the first that kept photos is shown.
    """
    kept = {name: _kept(folder) for name, folder in zip(methods, folders, strict=True)}
    scored = [{file_stem(name) for run in runs for name in run.scores()} for runs in methods.values()]
    shared = [
        photo for photo in next(iter(kept.values())) if all(photo in one for one in (*kept.values(), *scored))
    ]
    if not shared:
        return None
    photo = shared[0]
    cells = [Cell(_centre(clean), "clean") for clean in _clean(next(iter(methods.values()))[0], photo)]
    for name, results in methods.items():
        cells.append(Cell(_centre(kept[name][photo]), f"{name}  {_psnr(results, photo)}"))
    width = min(COLUMNS, len(cells))
    cells += [Cell(np.full_like(cells[0].pixels, 252))] * (-len(cells) % width)
    rows = [Row("", cells[at : at + width]) for at in range(0, len(cells), width)]
    about = f"{SIDE} x {SIDE} pixels of the centre; dB of the whole photo"
    return contact_sheet(title=photo, subtitle=about, columns=[""] * width, rows=rows)


def _kept(folder: str) -> dict[str, Path]:
    """Photo -> the file of the first seed that kept it."""
    found: dict[str, Path] = {}
    for file in list_photos(Path(folder)):
        if "images" in file.parts[len(Path(folder).parts) :]:
            found.setdefault(file.stem, file)
    return found


def _clean(result: Result, photo: str) -> list[Path]:
    """The clean photo's file, if the test set is still in its folder."""
    root = Path(str(result.benchmark.get("root")))
    return [file for file in list_photos(root) if file_stem(file.stem) == photo] if root.is_dir() else []


def _psnr(results: Sequence[Result], photo: str) -> str:
    scores = {
        file_stem(name): score for result in reversed(results) for name, score in result.scores().items()
    }
    return f"{scores[photo]:.2f} dB" if photo in scores else ""


def _centre(file: Path) -> Pixels:
    """The centre crop, uint8 (SIDE,SIDE,3), or smaller if the photo is smaller."""
    pixels = read_photo(file)
    top, left = (max((side - SIDE) // 2, 0) for side in pixels.shape[:2])
    return pixels[top : top + SIDE, left : left + SIDE]
