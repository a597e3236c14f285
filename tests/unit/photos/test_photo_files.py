"""Photos of every common kind come back as they were: pixels, depth, alpha, EXIF, colour profile,
resolution."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps, TiffImagePlugin
from run_folders import photo

from restora.photos.encoding import encode, lost_in
from restora.photos.exif import _entries as entries_of
from restora.photos.files import FORMATS, Metadata, Photo, open_photo, read_photo
from restora.photos.header import look

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'
ORIENTATION = 0x0112


def exif(orientation=6):
    """EXIF with a camera, an author, an orientation, a size, a date and a place."""
    made = Image.Exif()
    made[ORIENTATION], made[0x010F], made[0x013B] = orientation, "Camera", "Ann"
    made.get_ifd(0x8769).update({0x9003: "2020:01:02 03:04:05", 0xA002: 84, 0xA003: 60, 0x829A: 0.01})
    made.get_ifd(0x8825).update({1: "N", 2: (51.0, 30.0, 12.5)})
    return made


def deep(channels=3):
    """16-bit pixels that 8 bits cannot hold, (H,W,C)."""
    values = photo().astype(np.uint16) * 257
    values += np.random.default_rng(0).integers(0, 90, values.shape).astype(np.uint16)
    return np.ascontiguousarray(values[..., :channels])


def ramp(dtype=np.uint8):
    """An alpha channel (H,W) from clear to opaque."""
    top = np.iinfo(dtype).max
    return np.tile(np.linspace(0, top, 84).astype(dtype), (60, 1))


def roundtrip(path, tmp_path):
    """Read, encode in the same format, and read again."""
    first = read_photo(path)
    again = tmp_path / f"again{path.suffix}"
    again.write_bytes(encode(first, FORMATS[path.suffix.lower()]))
    return first, read_photo(again), again


LOSSLESS_8_BIT = {
    "rgb.png": Image.fromarray(photo()),
    "grey.png": Image.fromarray(photo()).convert("L"),
    "rgba.png": Image.fromarray(np.dstack([photo(), ramp()])),
    "grey_alpha.png": Image.fromarray(np.dstack([photo()[..., 0], ramp()])),
    "rgb.tif": Image.fromarray(photo()),
    "rgba.tiff": Image.fromarray(np.dstack([photo(), ramp()])),
    "grey.tif": Image.fromarray(photo()).convert("L"),
    "rgb.bmp": Image.fromarray(photo()),
    "rgb.ppm": Image.fromarray(photo()),
    "grey.pgm": Image.fromarray(photo()).convert("L"),
}


@pytest.mark.parametrize("name", LOSSLESS_8_BIT)
def test_lossless_formats_return_the_same_pixels(name, tmp_path):
    image = LOSSLESS_8_BIT[name]
    image.save(tmp_path / name)
    first, second, again = roundtrip(tmp_path / name, tmp_path)
    expected = np.atleast_3d(np.asarray(image))
    has_alpha = image.mode.endswith("A")
    np.testing.assert_array_equal(first.pixels, expected[..., :-1] if has_alpha else expected)
    np.testing.assert_array_equal(second.pixels, first.pixels)
    assert (first.alpha is not None) == has_alpha
    with Image.open(again) as opened:
        assert opened.mode == image.mode
        np.testing.assert_array_equal(np.asarray(opened), np.asarray(image))


@pytest.mark.parametrize(
    ("suffix", "channels", "with_alpha"),
    [
        *((suffix, channels, False) for suffix in (".png", ".tif", ".ppm") for channels in (1, 3)),
        *((".png", 1, True), (".png", 3, True), (".tif", 3, True)),
    ],
)
def test_sixteen_bits_stay_sixteen_bits(suffix, channels, with_alpha, tmp_path):
    made = Photo(deep(channels), ramp(np.uint16) if with_alpha else None, Metadata())
    path = tmp_path / f"deep{suffix}"
    path.write_bytes(encode(made, FORMATS[suffix]))
    first, second, _ = roundtrip(path, tmp_path)
    for read in (first, second):
        assert read.pixels.dtype == np.uint16
        np.testing.assert_array_equal(read.pixels, made.pixels)
        if with_alpha:
            np.testing.assert_array_equal(read.alpha, made.alpha)


def test_sixteen_bit_files_of_other_programs(tmp_path):
    """Files that OpenCV and tifffile wrote are read, and tifffile and OpenCV read ours: neither half checks
    itself."""
    tifffile = pytest.importorskip("tifffile")
    cv2.imwrite(str(tmp_path / "theirs.png"), deep()[..., ::-1])
    tifffile.imwrite(tmp_path / "theirs.tif", deep(), photometric="rgb", compression="zlib")
    for name in ("theirs.png", "theirs.tif"):
        first, _, again = roundtrip(tmp_path / name, tmp_path)
        np.testing.assert_array_equal(first.pixels, deep())
        read = cv2.imread(str(again), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(read[..., ::-1], deep())
    np.testing.assert_array_equal(tifffile.imread(again), deep())


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
def test_metadata_is_kept(name, tmp_path):
    path = tmp_path / name
    options = {"exif": exif(1)}
    if name == "a.tif":  # Pillow leaves the directories out when it is handed an Exif object
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        for tag, value in exif(1).items():
            tags[tag] = value
        for directory in (0x8769, 0x8825):
            tags[directory] = dict(exif(1).get_ifd(directory))
        options = {"tiffinfo": tags}
    Image.fromarray(photo()).save(path, icc_profile=SRGB, dpi=(300, 300), **options)
    _, _, again = roundtrip(path, tmp_path)
    with Image.open(path) as before, Image.open(again) as after:
        assert after.info["icc_profile"] == SRGB
        assert after.info.get("dpi") == before.info.get("dpi")
        wanted = exif(1)
        held = after.getexif()
        assert {tag: held[tag] for tag in wanted} == dict(wanted)
        for directory in (0x8769, 0x8825):
            assert dict(held.get_ifd(directory)) == dict(before.getexif().get_ifd(directory))
            assert held.get_ifd(directory)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
def test_orientation_is_shown_as_before(name, orientation, tmp_path):
    """Whether the pixels are turned or the tag is kept, a viewer shows the same photo before and after."""
    path = tmp_path / name
    options = (
        {"quality": 100, "subsampling": 0}
        if name == "a.jpg"
        else {"lossless": True}
        if name == "a.webp"
        else {}
    )
    Image.fromarray(photo()).save(path, exif=exif(orientation), **options)
    _, _, again = roundtrip(path, tmp_path)
    with Image.open(path) as before, Image.open(again) as after:
        shown = [
            np.asarray(ImageOps.exif_transpose(image).convert("RGB"), dtype=float)
            for image in (before, after)
        ]
    assert shown[0].shape == shown[1].shape
    assert np.abs(shown[0] - shown[1]).mean() < 3


def test_orientation_of_sixteen_bit_tiff_is_shown_as_before(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    tag = (ORIENTATION, 3, 1, 6, True)
    tifffile.imwrite(tmp_path / "a.tif", deep(), photometric="rgb", extratags=[tag])
    _, second, again = roundtrip(tmp_path / "a.tif", tmp_path)
    np.testing.assert_array_equal(second.pixels, np.rot90(deep(), -1))
    with Image.open(again) as image:
        assert image.getexif().get(ORIENTATION, 1) == 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_formats_without_exif_are_written_upright(orientation):
    made = Photo(photo(), None, Metadata(exif=exif(orientation).tobytes().removeprefix(b"Exif\x00\x00")))
    with Image.open(io.BytesIO(encode(made, "PNG"))) as image:
        shown = np.asarray(ImageOps.exif_transpose(image))
    with Image.open(io.BytesIO(encode(made, "BMP"))) as image:
        np.testing.assert_array_equal(np.asarray(image), shown)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
def test_metadata_survives_a_change_of_format(name):
    metadata = Metadata(
        exif=exif(3).tobytes().removeprefix(b"Exif\x00\x00"), icc=SRGB, xmp=XMP, dpi=(300.0, 300.0)
    )
    data = encode(Photo(photo(), None, metadata), FORMATS[f".{name[2:]}"])
    with Image.open(io.BytesIO(data)) as image:
        assert image.info["icc_profile"] == SRGB
        assert image.getexif()[0x013B] == "Ann"
        assert image.getexif().get_ifd(0x8769)[0x9003] == "2020:01:02 03:04:05"
        image.load()
        held = image.info.get("xmp")
        assert (held.encode() if isinstance(held, str) else held) == XMP


def test_recorded_size_follows_the_pixels():
    metadata = Metadata(exif=exif(1).tobytes().removeprefix(b"Exif\x00\x00"))
    data = encode(Photo(np.repeat(np.repeat(photo(), 2, 0), 2, 1), None, metadata), "JPEG")
    with Image.open(io.BytesIO(data)) as image:
        directory = image.getexif().get_ifd(0x8769)
        assert (directory[0xA002], directory[0xA003]) == image.size == (168, 120)


@pytest.mark.parametrize("pointers", [1, 200], ids=["itself", "each further one"])
def test_exif_directories_that_lie_in_each_other_are_read_once(pointers):
    """A few bytes would else be read for ever, and what was found fill the memory."""
    at = 8 if pointers == 1 else 8 + 12
    entries = b"".join(struct.pack(">HHII", 0x8769, 4, 1, at + 12 * n) for n in range(pointers))
    block = b"MM\0*" + struct.pack(">IH", 8, pointers) + entries + bytes(4)
    assert len(list(entries_of(block))) <= 2 * 65_536
    data = io.BytesIO()
    Image.fromarray(photo()).save(data, "JPEG", exif=b"Exif\0\0" + block)
    assert open_photo(data.getvalue()).encode("JPEG")


def test_png_text_and_gamma_are_kept(tmp_path):
    chunks = [
        (b"gAMA", struct.pack(">I", 45455)),
        (b"tEXt", b"Title\x00Old photo"),
        (b"sBIT", b"\x08\x08\x08"),
    ]
    Image.fromarray(photo()).save(tmp_path / "plain.png")
    data = (tmp_path / "plain.png").read_bytes()
    extra = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
    (tmp_path / "a.png").write_bytes(data[:33] + extra + data[33:])
    _, _, again = roundtrip(tmp_path / "a.png", tmp_path)
    with Image.open(again) as image:
        image.load()
        assert image.text == {"Title": "Old photo"}
        assert image.info["gamma"] == pytest.approx(0.45455)
    assert b"sBIT" not in again.read_bytes()  # it speaks of the old pixels


def test_profile_of_another_colour_space_is_left_out(tmp_path):
    grey = Photo(photo()[..., :1].copy(), None, Metadata(icc=SRGB))
    with Image.open(io.BytesIO(encode(grey, "PNG"))) as image:
        assert "icc_profile" not in image.info
    assert lost_in(grey, "PNG") == ["a colour profile for RGB pixels (they are grey)"]
    Image.fromarray(photo()).save(tmp_path / "a.png", icc_profile=SRGB)
    assert lost_in(read_photo(tmp_path / "a.png"), "PNG") == []
    read = read_photo(tmp_path / "a.png")
    read.pixels = read.pixels[..., :1].copy()
    with Image.open(io.BytesIO(encode(read, "PNG"))) as image:
        assert "icc_profile" not in image.info


def test_palettes_and_their_transparency(tmp_path):
    colours = Image.fromarray(photo()).quantize(32)
    colours.save(tmp_path / "a.png", transparency=5)
    read = read_photo(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        expected = np.asarray(image.convert("RGBA"))
    np.testing.assert_array_equal(np.dstack([read.pixels, read.alpha]), expected)
    assert set(np.unique(read.alpha)) == {0, 255}


def test_black_and_white_becomes_grey(tmp_path):
    Image.fromarray(photo()[..., 0] > 128).save(tmp_path / "a.png")
    read = read_photo(tmp_path / "a.png")
    assert read.pixels.shape == (60, 84, 1)
    assert set(np.unique(read.pixels)) == {0, 255}


def test_cmyk_becomes_rgb(tmp_path):
    image = Image.fromarray(photo()).convert("CMYK")
    for name in ("a.jpg", "a.tif"):
        image.save(tmp_path / name)
        read = read_photo(tmp_path / name)
        assert read.pixels.shape == (60, 84, 3)
        assert np.abs(read.pixels.astype(float) - photo()).mean() < 6


def test_webp_stays_lossless_or_lossy(tmp_path):
    image = Image.fromarray(np.dstack([photo(), ramp()]))
    image.save(tmp_path / "lossless.webp", lossless=True, exact=True)
    image.save(tmp_path / "lossy.webp", quality=70)
    first, second, _ = roundtrip(tmp_path / "lossless.webp", tmp_path)
    np.testing.assert_array_equal(first.pixels, photo())
    np.testing.assert_array_equal(second.pixels, photo())  # also where it is clear
    first, second, again = roundtrip(tmp_path / "lossy.webp", tmp_path)
    assert b"VP8L" not in again.read_bytes()
    assert np.abs(first.pixels.astype(float) - second.pixels).mean() < 3


def test_jpeg_is_written_with_full_colour_and_quality():
    data = encode(Photo(photo(), None, Metadata()), "JPEG")
    with Image.open(io.BytesIO(data)) as image:
        assert image.layer == [("\x01", 1, 1, 0), ("\x02", 1, 1, 1), ("\x03", 1, 1, 1)] or all(
            layer[1:3] == (1, 1) for layer in image.layer
        )
        assert np.abs(np.asarray(image, dtype=float) - photo()).mean() < 2


def broken_files(folder):
    """(file, what its message says)"""
    Image.fromarray(photo()).save(folder / "whole.jpg")
    Image.fromarray(photo()).save(folder / "whole.png")
    cv2.imwrite(str(folder / "whole16.png"), deep())
    Image.fromarray(photo()[..., 0].astype(np.float32)).save(folder / "float.tif")
    for name in ("whole.jpg", "whole.png", "whole16.png"):
        data = (folder / name).read_bytes()
        (folder / f"cut_{name}").write_bytes(data[: len(data) // 2])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.jpg").write_text("not a photo")
    return {
        "cut_whole.jpg": "cannot be decoded",
        "cut_whole.png": "cannot be decoded",
        "cut_whole16.png": "cannot be decoded",
        "empty.png": "is empty",
        "text.jpg": "not a photo",
        "float.tif": "16 bits",
    }


def test_what_cannot_be_read_is_named(tmp_path):
    for name, message in broken_files(tmp_path).items():
        with pytest.raises(ValueError, match=message):
            read_photo(tmp_path / name)


def test_what_a_format_cannot_hold_is_refused():
    clear = Photo(photo(), ramp(), Metadata())
    with pytest.raises(ValueError, match="transparency"):
        encode(clear, "JPEG")
    wide = Photo(np.zeros((1, 17000, 3), np.uint8), None, Metadata())
    with pytest.raises(ValueError, match="cannot be written as WEBP"):
        encode(wide, "WEBP")


def test_sixteen_bits_are_rounded_where_the_format_has_eight():
    data = encode(Photo(deep(), None, Metadata()), "BMP")
    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(np.asarray(image), np.round(deep() / 257).astype(np.uint8))


def test_bits_that_are_not_read_are_named():
    deep_photo = (photo().astype(np.uint16)) * 4
    done, data = cv2.imencode(".avif", deep_photo, [cv2.IMWRITE_AVIF_DEPTH, 10])
    assert done
    assert lost_in(open_photo(data.tobytes()), "AVIF") == ["more than 8 bits per channel (8 were read)"]
    out = io.BytesIO()
    Image.fromarray(photo()).save(out, "AVIF")
    assert lost_in(open_photo(out.getvalue()), "AVIF") == []


def test_a_comment_may_be_longer_than_a_segment_of_a_jpeg():
    out = io.BytesIO()
    Image.fromarray(photo()).quantize(8).save(out, "GIF", comment=b"word " * 20_000)
    found = open_photo(open_photo(out.getvalue()).encode("JPEG")).metadata
    assert b"".join(found.comments) == b"word " * 20_000


def test_a_profile_replaces_the_chunk_that_says_srgb():
    """A PNG file may not have both (PNG specification, 11.3.2.5)."""
    held = Metadata(icc=SRGB, png_chunks=((b"sRGB", b"\x00"), (b"gAMA", struct.pack(">I", 45455))))
    file = encode(Photo(photo(), None, held), "PNG")
    assert b"iCCP" in file
    assert b"gAMA" in file
    assert b"sRGB\x00" not in file


@pytest.mark.parametrize("name", ["PNG", "TIFF"])
def test_pixels_are_deflated_at_a_fast_level(name: str) -> None:
    """Slower ones take twice the time, which a GPU waits for, and leave photos as large."""
    file = encode(Photo(np.zeros((8, 8, 3), np.uint8), None), name)
    start = file.index(b"IDAT") + 4 if name == "PNG" else file.index(b"\x78")
    assert file[start + 1] >> 6 <= 1, "the level in the header of zlib: 0 is fastest, 2 its own"


def test_slices_of_a_volume_are_counted_as_pages():
    """Its first slice is all that is read, and all that would be kept."""
    depth, file = TiffImagePlugin.ImageFileDirectory_v2(), io.BytesIO()
    depth[32997], depth.tagtype[32997] = 4, 3
    Image.new("L", (16, 12)).save(file, "TIFF", tiffinfo=depth)
    assert look(file.getvalue()).frames == 4
