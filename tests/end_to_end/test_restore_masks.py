"""`restora restore --mask`: pictures, folders of pictures and colours that mark what is lost."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageOps
from run_folders import ARGUMENTS, photo, write_checkpoint
from test_restore import files, photos

from restora.apps.export import main as export
from restora.apps.restore import main as restore
from restora.apps.restoring.masks import Masks
from restora.apps.restoring.plan import Job
from restora.artifact.restorer import Restorer
from restora.networks.dncnn import FDnCNN
from restora.photos.files import read_photo

__all__ = ["photos"]


@pytest.fixture
def filler(tmp_path):
    """A model that is conditioned on a mask, from its checkpoint's degradation alone."""
    torch.manual_seed(0)
    degradation = {
        "_target_": "brush_strokes",
        "strokes": 4,
        "fill": 0.25,
    }
    checkpoint = write_checkpoint(
        tmp_path / "filler.ckpt",
        FDnCNN(**ARGUMENTS),
        network={"name": "fdncnn", "arguments": ARGUMENTS},
        task="inpaint",
        degradation=degradation,
    )
    assert export([str(checkpoint), str(tmp_path / "filler"), "--no-onnx"]) == 0
    return tmp_path / "filler"


def test_lost_pixels_are_masked_as_in_training(filler, photos, tmp_path):
    """What lies under the mask cannot matter, what lies beside it must."""
    lost = np.zeros((60, 84), np.uint8)
    lost[20:40, 30:60] = 255
    (tmp_path / "masks").mkdir()
    Image.fromarray(lost).save(tmp_path / "masks" / "a.png")
    outputs = []
    for value in (0, 200):
        damaged = photo()
        damaged[lost > 0] = value
        Image.fromarray(damaged).save(photos / "a.png")
        for masks in ("masks", "masks/a.png"):
            arguments = [str(filler), str(photos / "a.png"), str(tmp_path / f"out{len(outputs)}.png")]
            assert restore([*arguments, "--mask", str(tmp_path / masks)]) == 0
            outputs.append((tmp_path / f"out{len(outputs)}.png").read_bytes())
    assert len(set(outputs)) == 1
    restorer = Restorer.load(filler, device="cpu")
    known = torch.from_numpy(lost == 0).float()[None, None]
    x = torch.from_numpy(photo()).permute(2, 0, 1)[None].float() / 255
    expected = restorer(x.where(known > 0, 0.25), known).mul(255).round().byte()[0].permute(1, 2, 0).numpy()
    expected = np.where(lost[..., None] > 0, expected, photo())  # what is known stays, bit for bit
    with Image.open(tmp_path / "out0.png") as image:
        np.testing.assert_array_equal(np.asarray(image), expected)


def test_masks_that_are_missing_or_of_another_size_are_named(filler, photos, tmp_path, capsys):
    with pytest.raises(ValueError, match="give --mask WHAT"):
        restore([str(filler), str(photos), str(tmp_path / "out")])
    (tmp_path / "masks").mkdir()
    half = Image.new("L", (84, 60))
    half.paste(255, (0, 0, 42, 60))
    half.save(tmp_path / "masks" / "a.png")
    Image.new("L", (5, 5)).save(tmp_path / "masks" / "b.png")
    assert restore([str(filler), str(photos), str(tmp_path / "out"), "--mask", str(tmp_path / "masks")]) == 1
    assert files(tmp_path / "out") == ["a.png"]
    errors = capsys.readouterr().err
    assert "b.JPG: its mask is 5x5 pixels, the photo 84x60" in errors
    assert "album/c.tif: has no mask" in errors


def test_a_mask_that_marks_nothing_is_named(filler, photos, tmp_path, capsys):
    """Middle grey is the first level that is lost."""
    level = tmp_path / "level.png"
    words = [str(photos / "a.png"), str(tmp_path / "out.png"), "--mask", str(level)]
    Image.new("L", (84, 60), 127).save(level)
    for source in (str(filler), "method:dip"):
        assert restore([source, *words]) == 1
        said = " ".join(capsys.readouterr().err.split())
        assert "its mask marks nothing: no pixel is white: paint what is to be filled in white" in said
    assert not (tmp_path / "out.png").exists()
    half = Image.new("L", (84, 60), 127)
    half.paste(128, (0, 0, 42, 60))
    half.save(level)
    assert restore([str(filler), *words]) == 0


def test_a_mask_that_marks_everything_is_named(filler, photos, tmp_path, capsys):
    """Also one that is white where it is transparent; such pixels mark nothing."""
    mask = tmp_path / "white.png"
    words = [str(photos / "a.png"), str(tmp_path / "out.png"), "--mask", str(mask)]
    Image.new("L", (84, 60), 255).save(mask)
    for source in (str(filler), "method:dip"):
        assert restore([source, *words]) == 1
        said = " ".join(capsys.readouterr().err.split())
        assert "its mask is white everywhere: paint white only what is to be filled in" in said
    layer = np.full((60, 84, 4), 255, np.uint8)
    layer[..., 3] = 0
    layer[20:30, 40:50, 3] = 255
    Image.fromarray(layer).save(mask)
    assert restore([str(filler), *words]) == 0
    with Image.open(tmp_path / "out.png") as image:
        unlike = (np.asarray(image) != photo()).any(2)
    assert unlike[20:30, 40:50].any()
    unlike[20:30, 40:50] = False
    assert not unlike.any()


def test_a_colour_marks_what_is_lost_also_in_half_strength(filler, photos, tmp_path, capsys):
    """As the picture of the same pixels does; what is not painted stays bit for bit."""
    damaged, lost = photo(), np.zeros((60, 84), bool)
    lost[20:40, 30:60] = True
    damaged[lost] = (255, 3, 250)
    Image.fromarray(damaged).save(photos / "a.png")
    Image.fromarray(lost).save(tmp_path / "lost.png")
    results = []
    for mask in ("magenta", "#ff00ff", str(tmp_path / "lost.png")):
        arguments = [str(filler), str(photos / "a.png"), str(tmp_path / "out.png"), "--overwrite"]
        assert restore([*arguments, "--strength", "0.5", "--mask", mask]) == 0
        with Image.open(tmp_path / "out.png") as image:
            results.append(np.asarray(image))
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])
    np.testing.assert_array_equal(results[0][~lost], damaged[~lost])
    assert (results[0][lost] != damaged[lost]).any()
    assert restore([str(filler), str(photos / "b.JPG"), str(tmp_path / "b.png"), "--mask", "magenta"]) == 1
    assert "has no pixel of the colour #ff00ff" in capsys.readouterr().err
    with pytest.raises(ValueError, match="no such picture or folder, and not a colour"):
        restore([str(filler), str(photos), str(tmp_path / "out"), "--mask", "masks"])


@pytest.mark.parametrize(
    ("colour", "quality", "suffix"),
    [("#ff00ff", 85, ".jpg"), ("#ff0000", 75, ".jfif"), ("#00ff00", 95, ".jpg"), ("#ff00ff", 80, ".webp")],
)
def test_a_colour_marks_what_is_lost_in_a_lossy_file(colour, quality, suffix, photos, tmp_path):
    """A thin line, whose colours JPEG blends with those beside it; far from it nothing is lost."""
    with Image.open(photos / "a.png") as image:
        painted = image.convert("RGB").resize((160, 120))
    ImageDraw.Draw(painted).line((10, 15, 140, 100), fill=colour, width=3)
    painted.save(tmp_path / f"marked{suffix}", quality=quality)
    line = Image.new("L", (160, 120))
    ImageDraw.Draw(line).line((10, 15, 140, 100), fill=255, width=3)
    on = np.asarray(line) > 0
    beside = cv2.dilate(on.astype(np.uint8), np.ones((25, 25), np.uint8)) > 0
    job = Job(tmp_path / f"marked{suffix}", tmp_path / "out.png", f"marked{suffix}")
    lost = Masks(colour).read(job, read_photo(job.source)).pixels[..., 0] > 0
    assert lost[on].mean() > 0.99
    assert not lost[~beside].any()


@pytest.mark.parametrize("turn", [1, 3, 5, 6, 7, 8])
def test_a_mask_lies_like_the_stored_pixels_or_like_the_upright_photo(turn, tmp_path):
    """A program that edits a phone's photo saves it upright, without the tag that turns it."""
    tag = Image.Exif()
    tag[0x0112] = turn
    Image.fromarray(photo()).save(tmp_path / "a.png", exif=tag)
    lost = np.zeros((60, 84), np.uint8)
    lost[5:10, 50:80] = 255
    stored = Image.fromarray(lost)
    stored.save(tmp_path / "stored.png")
    with Image.open(tmp_path / "a.png") as image:
        stored.getexif()[0x0112] = image.getexif()[0x0112]
    ImageOps.exif_transpose(stored).save(tmp_path / "upright.png", exif=Image.Exif())
    job = Job(tmp_path / "a.png", tmp_path / "out.png", "a.png")
    for name in ("stored.png", "upright.png") if turn in (5, 6, 7, 8) else ("stored.png",):
        found = Masks(str(tmp_path / name)).read(job, read_photo(job.source))
        np.testing.assert_array_equal(found.pixels[..., 0], lost)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("out.jfif", [], "JPEG also changes pixels outside of the mask"),
        ("out.avif", [], "AVIF also changes pixels outside of the mask"),
        ("out.webp", ["--quality", "90"], "WEBP also changes pixels outside of the mask"),
        ("out.webp", [], ""),
        ("out.png", [], ""),
    ],
)
def test_formats_that_change_pixels_outside_of_the_mask_are_named(
    name, options, said, filler, photos, tmp_path, capsys
):
    lost = np.zeros((60, 84), np.uint8)
    lost[20:40, 30:60] = 255
    Image.fromarray(lost).save(tmp_path / "lost.png")
    arguments = [
        str(filler),
        str(photos / "a.png"),
        str(tmp_path / name),
        "--mask",
        str(tmp_path / "lost.png"),
    ]
    assert restore([*arguments, *options]) == 0
    out = capsys.readouterr().out
    assert said in out
    assert bool(said) == ("outside of the mask" in out)
