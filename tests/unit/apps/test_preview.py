"""`restora preview`: one PNG of any photo, and mistakes that name their fix."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage import data

from restora.apps import contact_sheet
from restora.apps.preview import described, main
from restora.config import compose


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with photos of many kinds, which is the current one."""
    monkeypatch.chdir(tmp_path)
    pixels = data.astronaut()[:96, 150:280]
    colour = Image.fromarray(pixels)
    colour.save("colour.png")
    colour.convert("L").save("grey.png")
    colour.convert("P").save("palette.png")
    colour.convert("CMYK").save("print.jpg")
    alpha = colour.convert("RGBA")
    alpha.putalpha(128)
    alpha.save("alpha.png")
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save("sixteen.png")
    colour.resize((9, 7)).save("tiny.png")
    (tmp_path / "folder").mkdir()
    return tmp_path


def sheet(*arguments: str) -> np.ndarray:
    assert main([*arguments, "output=sheet.png"]) == 0
    with Image.open("sheet.png") as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize(
    "photo", ["colour.png", "grey.png", "palette.png", "print.jpg", "alpha.png", "sixteen.png"]
)
@pytest.mark.slow
def test_photos_of_every_kind_are_shown(photo: str) -> None:
    drawn = sheet("degradation=old_photo", photo, "draws=1", "size=48")
    assert drawn.std() > 10
    assert not np.array_equal(drawn, sheet("degradation=sepia", photo, "draws=1", "size=48"))


def test_sheets_are_replayed_from_their_seed() -> None:
    arguments = ("degradation=rain", "colour.png", "draws=2", "size=48")
    assert np.array_equal(sheet(*arguments), sheet(*arguments))
    assert not np.array_equal(sheet(*arguments), sheet(*arguments, "seed=5"))


def test_one_column_per_value_of_a_parameter() -> None:
    values = sheet("degradation=gaussian_noise", "grey.png", "vary=sigma", "over=[0,40,[0,80]]", "size=48")
    two = sheet("degradation=gaussian_noise", "grey.png", "vary=sigma", "over=[0,40]", "size=48")
    assert values.shape[1] > two.shape[1]
    inner = sheet("degradation=old_photo", "grey.png", "vary=stages.grain.strength", "over=[0,90]", "size=48")
    assert inner.std() > 10


def test_a_stage_can_be_left_out() -> None:
    arguments = ("degradation=blur_noise_jpeg", "colour.png", "draws=1", "size=48")
    assert not np.array_equal(sheet(*arguments, "~degradation.stages.blur"), sheet(*arguments))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("any_noise", "gaussian 50% (sigma 5 to 50) · poisson 25% (photons 20 to 200)"),
        ("everyday_defects", "nothing 0% (identity)"),
        ("any_blur", "motion (length 5 to 21)"),  # equal shares
        ("keep_grey", "stage (identity)"),
    ],
)
def test_the_subtitle_names_shares_and_stages(name: str, words: str) -> None:
    assert words in described(compose("preview", [f"degradation={name}"], hydra_node=True).degradation)


def test_draws_that_are_all_the_same_are_shown_once() -> None:
    same = sheet(
        "degradation=sepia", "degradation.strength=1", "colour.png", "grey.png", "draws=3", "size=48"
    )
    once = sheet(
        "degradation=sepia", "degradation.strength=1", "colour.png", "grey.png", "draws=1", "size=48"
    )
    assert same.shape == once.shape
    assert not np.array_equal(same, once)  # its heading says which seeds
    assert sheet("degradation=sepia", "colour.png", "draws=3", "size=48").shape[1] > once.shape[1]


def test_a_tiny_photo_is_shown_at_its_size() -> None:
    assert sheet("degradation=jpeg", "tiny.png", "size=7", "draws=1").size


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["degradation=motionblur"], r"Did you mean degradation=motion_blur"),
        (["degradation=jpeg", "missing.png"], "missing.png: does not exist"),
        (["degradation=jpeg", "folder"], r"folder is a folder: name its photos"),
        (["degradation=jpeg", "tiny.png"], r"tiny.png has 9x7 pixels.*set size=7"),
        (["degradation=bicubic_x4", "colour.png", "size=50"], r"a multiple of 4.*set size=48"),
        (["degradation=jpeg", "size=0"], "size must be a whole number of at least 1, got 0"),
        (["degradation=jpeg", "size=big"], "size must be a whole number of at least 1, got big"),
        (["degradation=jpeg", "draws=0"], "draws must be a whole number of at least 1, got 0"),
        (["degradation=jpeg", "seed=x"], "seed must be a whole number, got x"),
        (["degradation=jpeg", "vary=quality"], r"needs values, such as over=\[5,10,20\]"),
        (["degradation=jpeg", "vary=quality", "over=5"], r"needs values"),
        (["degradation=jpeg", "vary=qualty", "over=[5]"], "no parameter 'qualty'; it has quality"),
        (["degradation=jpeg", "degradation.quality=ab"], "quality=ab: expected a number"),
        (["degradation=jpeg", "degradation.quality=10.5"], "whole number.*got 10.5"),
        (["degradation=gaussian_noise", "degradation.sigma=null"], "expected a number or a list of numbers"),
        (["degradation=jpeg", "colour.png", "output=sheet.jpg"], "write output=sheet.png"),
    ],
)
@pytest.mark.slow
def test_mistakes_name_thing_and_fix(arguments: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        main(arguments)
    assert not Path("sheet.jpg").exists()


def test_a_narrow_cell_keeps_its_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[str, str]] = []
    cut = contact_sheet._cut

    def spied(text: str, width: int, font: Any) -> str:
        said.append((text, cut(text, width, font)))
        return said[-1][1]

    monkeypatch.setattr(contact_sheet, "_cut", spied)
    cells = [
        contact_sheet.Cell(np.zeros((77, 77), np.uint8), text) for text in ("77 x 77 pixels", "19.4 dB PSNR")
    ]
    row = contact_sheet.Row("photo.png", cells)
    sheet = contact_sheet.contact_sheet(title="noise", subtitle="", columns=["clean", "draw 1"], rows=[row])
    assert all(text == shown for text, shown in said)
    assert sheet.width < 2 * (contact_sheet._WIDEST_CAPTION + contact_sheet._MARGIN)


def test_a_sheet_that_does_not_fit_on_the_disk_leaves_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    before = sheet("degradation=jpeg", "colour.png", "size=96")
    save = Image.Image.save

    def half(image: Image.Image, file: Any, *arguments: Any, **options: Any) -> None:
        save(image, file, *arguments, **options)
        if isinstance(file, str | Path):
            Path(file).write_bytes(Path(file).read_bytes()[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", half)
    with pytest.raises(OSError, match="No space"):
        sheet("degradation=jpeg", "grey.png", "size=96")
    with Image.open("sheet.png") as image:
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), before)
