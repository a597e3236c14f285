"""Every kind of photo is read as it is tagged, by what restores and by what trains; what is a photo, and how
large it may be, is one decision."""

import io
import struct
import sys

import numpy as np
import pytest
from photo_kinds import bad_files, colours, photo_kinds, saved, tiff
from PIL import Image

from restora.photos.decoding import rounded_to_8_bits
from restora.photos.errors import DecodingError, PhotoError
from restora.photos.files import look, open_photo, read_photo
from restora.photos.kinds import FORMATS, READABLE, kind
from restora.photos.reading import photo_size
from restora.photos.reading import read_photo as read_for_training

KINDS = photo_kinds()
BAD = bad_files()


@pytest.mark.parametrize("name", KINDS)
def test_pixels_are_those_of_the_file(name):
    held, photo = KINDS[name], open_photo(KINDS[name].data, name)
    assert photo.pixels.dtype == held.pixels.dtype
    assert photo.pixels.shape == held.pixels.shape
    assert np.abs(photo.pixels.astype(int) - held.pixels.astype(int)).max() <= held.near
    if held.alpha is None:
        assert photo.alpha is None
    else:
        np.testing.assert_array_equal(photo.alpha, held.alpha)


@pytest.mark.parametrize("name", KINDS)
def test_training_sees_the_same_pixels_over_white(name, tmp_path):
    held, path = KINDS[name], tmp_path / name
    path.write_bytes(held.data)
    pixels = rounded_to_8_bits(held.pixels).astype(float)
    if held.alpha is not None:
        weight = rounded_to_8_bits(held.alpha)[..., None] / 255
        pixels = pixels * weight + 255 * (1 - weight)
    if pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    assert np.abs(read_for_training(path) - pixels).max() <= 0.5 + held.near
    assert photo_size(path) == held.pixels.shape[:2]


@pytest.mark.parametrize("name", KINDS)
def test_the_header_knows_the_size_before_the_pixels(name):
    header = look(KINDS[name].data, name)
    assert (header.height, header.width) == KINDS[name].pixels.shape[:2]
    assert header.frames == 1
    assert header.megapixels == pytest.approx(header.height * header.width / 1e6)


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_read_has_one_reason_for_all(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(BAD[name]())
    with pytest.raises(DecodingError) as one:
        read_photo(path)
    with pytest.raises(PhotoError) as other:
        read_for_training(path)
    assert other.value.reason == str(one.value)
    assert str(one.value).startswith(("is ", "has ", "cannot be decoded: "))


@pytest.mark.parametrize("name", ["empty.png", "text.jpg", "bomb.png", "signed.tif", "clip.mp4"])
def test_a_bad_header_is_found_before_the_pixels(name, tmp_path):
    (tmp_path / name).write_bytes(BAD[name]())
    with pytest.raises(PhotoError):
        photo_size(tmp_path / name)


def test_videos_and_foreign_formats_are_answered():
    for name, word in (("clip.mp4", "video"), ("picture.jxl", "format that cannot be read")):
        with pytest.raises(DecodingError, match=word):
            open_photo(BAD[name](), name)


def test_names_decide_what_is_a_photo():
    assert {kind(f"a{suffix.upper()}") for suffix in READABLE} == {"photo"}
    assert kind(".hidden.png") == kind("notes.txt") == kind("noending") == "other"
    assert kind("a.mov") == "video"
    assert kind("a.exr") == "unreadable"
    assert set(FORMATS) <= set(READABLE)


def test_one_limit_on_pixels_for_all(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(KINDS["rgb8.png"].data)
    monkeypatch.setenv("RESTORA_MAX_MEGAPIXELS", "0.001")
    for read in (read_photo, read_for_training, photo_size):
        with pytest.raises(ValueError, match=r"56x40 are 0\.0 megapixels, the limit is 0\.001"):
            read(path)
    with pytest.raises(DecodingError, match="too large"):
        open_photo(path.read_bytes())
    assert open_photo(path.read_bytes(), limit=10_000).pixels.shape == (40, 56, 3)
    monkeypatch.setenv("RESTORA_MAX_MEGAPIXELS", "many")
    with pytest.raises(ValueError, match="RESTORA_MAX_MEGAPIXELS is a number"):
        read_photo(path)


def test_a_scan_of_182_megapixels_is_no_bomb(tmp_path):
    """Its header; Pillow alone refuses twice 89 megapixels."""
    blank = np.zeros((1, 14000), np.uint8)
    data = tiff(blank, tags={257: (13000,), 273: (8,), 279: (14000 * 13000,)})
    (tmp_path / "scan.tif").write_bytes(data)
    assert photo_size(tmp_path / "scan.tif") == (13000, 14000)


@pytest.mark.parametrize(
    ("name", "format_name"), [("a.gif", "GIF"), ("a.webp", "WEBP"), ("a.png", "PNG"), ("a.tif", "TIFF")]
)
def test_of_several_frames_the_first_is_read_and_the_number_known(name, format_name, tmp_path, caplog):
    frames = [colours(), colours()[::-1].copy(), colours()[:, ::-1].copy()]
    images = [Image.fromarray(frame) for frame in frames]
    options = {"lossless": True} if name == "a.webp" else {}
    data = saved(images[0], format_name, save_all=True, append_images=images[1:], **options)
    assert look(data, name).frames == 3
    photo = open_photo(data, name)
    assert photo.frames == 3
    assert np.abs(photo.pixels.astype(int) - frames[0]).mean() < (12 if name == "a.gif" else 1e-9)
    (tmp_path / name).write_bytes(data)
    for _ in range(2):
        np.testing.assert_array_equal(read_for_training(tmp_path / name), photo.pixels)
    assert caplog.text.count("has 3 frames or pages: the first is taken") == 1


def test_previews_among_the_pages_are_no_pages():
    first = tiff(colours())
    assert look(first).frames == 1
    preview = Image.fromarray(colours()[::4, ::4].copy())
    data = saved(colours(), "TIFF", save_all=True, append_images=[preview], tiffinfo={254: 0})
    assert look(data).frames == 2
    marked = saved(
        Image.fromarray(colours()), "TIFF", save_all=True, append_images=[preview], tiffinfo={254: 1}
    )
    assert look(marked).frames == 1


def test_heic_is_read_with_its_depth():
    heif = pytest.importorskip("pillow_heif", reason="pip install 'restora[photos]'")
    ramp = np.tile(np.linspace(0, 65535, 64).astype(np.uint16)[None, :, None], (48, 1, 3))
    for mode, values, error in (("RGB;16", ramp, 600), ("RGB", (ramp >> 8).astype(np.uint8), 3)):
        out = io.BytesIO()
        heif.from_bytes(mode, (64, 48), values.tobytes()).save(out, quality=-1)
        photo = open_photo(out.getvalue(), "a.heic")
        assert photo.format_name == "HEIF"
        assert photo.pixels.dtype == values.dtype
        assert np.abs(photo.pixels.astype(int) - values).max() <= error
        assert look(out.getvalue()).shown == (48, 64)


def raw_file(values):
    """A camera's raw file (DNG) without a preview: a mosaic (H,W) under a camera matrix of ones."""

    def rational(*numbers):
        return b"".join(struct.pack("<ii", number, 1) for number in numbers)

    (height, width), strip = values.shape, values.astype("<u2").tobytes()
    short, long = (lambda number: struct.pack("<H", number)), (lambda number: struct.pack("<I", number))
    tags = [
        *((254, 4, 1, long(0)), (256, 4, 1, long(width)), (257, 4, 1, long(height)), (258, 3, 1, short(16))),
        *((259, 3, 1, short(1)), (262, 3, 1, short(32803)), (271, 2, 5, b"Test\0"), (272, 2, 5, b"Test\0")),
        *((273, 4, 1, long(8)), (274, 3, 1, short(1)), (277, 3, 1, short(1)), (278, 4, 1, long(height))),
        *((279, 4, 1, long(len(strip))), (284, 3, 1, short(1)), (33421, 3, 2, short(2) * 2)),
        *((33422, 1, 4, bytes([0, 1, 1, 2])), (50706, 1, 4, bytes([1, 4, 0, 0])), (50708, 2, 5, b"Test\0")),
        *((50717, 4, 1, long(65535)), (50721, 10, 9, rational(1, 0, 0, 0, 1, 0, 0, 0, 1))),
        *((50728, 5, 3, rational(1, 1, 1)), (50778, 3, 1, short(21))),
    ]
    at = 8 + len(strip)
    entries, lists, end = b"", b"", at + 2 + 12 * len(tags) + 4
    for tag, form, count, body in tags:
        if len(body) > 4:
            body, lists = long(end + len(lists)), lists + body + bytes(len(body) % 2)
        entries += struct.pack("<HHI", tag, form, count) + body.ljust(4, b"\0")
    return b"II*\0" + long(at) + strip + short(len(tags)) + entries + bytes(4) + lists


def test_raw_files_are_developed(tmp_path):
    pytest.importorskip("rawpy", reason="pip install 'restora[photos]'")
    values = np.full((64, 96), 10000, np.uint16)
    values[:, 48:] = 40000
    path = tmp_path / "a.dng"
    path.write_bytes(raw_file(values))
    photo = read_photo(path)
    assert (photo.format_name, photo.pixels.shape, photo.pixels.dtype) == ("RAW", (64, 96, 3), np.uint16)
    dark, bright = photo.pixels[20:40, 10:30], photo.pixels[20:40, 70:90]
    assert dark.max() < bright.min() < 65535  # white is kept for what is white
    assert np.ptp(dark.astype(int)) < 700  # grey
    assert b"Test" in photo.metadata.exif
    assert photo_size(path) == (64, 96)
    assert read_for_training(path).shape == (64, 96, 3)


def test_without_the_extra_the_message_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setitem(sys.modules, "rawpy", None)
    for name in ("garbage.heic", "garbage.dng"):
        (tmp_path / name).write_bytes(BAD[name]())
        for read in (read_photo, photo_size):
            with pytest.raises(ValueError, match=r"pip install 'restora\[photos\]'"):
                read(tmp_path / name)
