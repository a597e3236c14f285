"""Every odd kind of photo file comes out as a viewer would show it; every broken one is named."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from restora.photos.errors import PhotoError
from restora.photos.reading import list_photos, photo_size, read_photo

HEIGHT, WIDTH = 12, 17


@pytest.fixture(scope="module")
def photo() -> NDArray[np.uint8]:
    """Random colours, (12,17,3): no symmetry, no smoothness that could hide a mistake."""
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def smooth() -> NDArray[np.uint8]:
    """A gradient, (24,32,3), that JPEG keeps to a few steps."""
    y, x = np.mgrid[0:24, 0:32]
    return np.stack([8 * x, 10 * y, 255 - 4 * (x + y)], axis=-1).clip(0, 255).astype(np.uint8)


def save(path: Path, pixels: NDArray[np.generic], mode: str | None = None, **options: object) -> Path:
    image = Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(path, **options)
    return path


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.png", {}),
        ("a.bmp", {}),
        ("a.ppm", {}),
        ("a.tif", {}),
        ("a.TIFF", {"compression": "tiff_lzw"}),
        ("a.webp", {"lossless": True}),
    ],
)
def test_lossless_formats_are_exact(
    tmp_path: Path, photo: NDArray[np.uint8], name: str, options: dict[str, object]
) -> None:
    path = save(tmp_path / name, photo, **options)
    np.testing.assert_array_equal(read_photo(path), photo)
    assert photo_size(path) == (HEIGHT, WIDTH)


def test_jpeg(tmp_path: Path, smooth: NDArray[np.uint8]) -> None:
    path = save(tmp_path / "a.jpg", smooth, quality=100, subsampling=0)
    assert np.abs(read_photo(path).astype(int) - smooth).max() <= 3


def test_grey_files(tmp_path: Path, photo: NDArray[np.uint8]) -> None:
    grey = photo[..., 0]
    path = save(tmp_path / "grey.png", grey)
    np.testing.assert_array_equal(read_photo(path, "gray"), grey[..., None])
    np.testing.assert_array_equal(read_photo(path), np.dstack([grey] * 3))


def test_grey_of_colours_is_matlabs(tmp_path: Path) -> None:
    colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [9, 9, 9]]], np.uint8)
    path = save(tmp_path / "a.png", colours)
    assert read_photo(path, "gray").ravel().tolist() == [76, 150, 29, 255, 9]


def test_one_bit(tmp_path: Path) -> None:
    bits = np.array([[True, False, True]] * 2)
    path = save(tmp_path / "a.png", bits)
    np.testing.assert_array_equal(read_photo(path, "gray")[..., 0], np.where(bits, 255, 0))


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tif"])
def test_alpha_lies_over_white(tmp_path: Path, photo: NDArray[np.uint8], name: str) -> None:
    alpha = np.full((HEIGHT, WIDTH, 1), 255, np.uint8)
    alpha[:4], alpha[4:8] = 0, 128
    options = {"lossless": True, "exact": True} if name == "a.webp" else {}
    pixels = read_photo(save(tmp_path / name, np.dstack([photo, alpha]), **options))
    assert (pixels[:4] == 255).all()
    np.testing.assert_array_equal(pixels[8:], photo[8:])
    expected = (photo[4:8].astype(float) * 128 + 255 * 127) / 255
    assert np.abs(pixels[4:8] - expected).max() <= 0.5


def test_grey_with_alpha(tmp_path: Path, photo: NDArray[np.uint8]) -> None:
    path = save(tmp_path / "a.png", np.dstack([photo[..., 0], np.zeros_like(photo[..., 0])]))
    assert Image.open(path).mode == "LA"
    assert (read_photo(path, "gray") == 255).all()


def test_palettes(tmp_path: Path) -> None:
    index = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH) % 5
    colours = np.array([[250, 10, 20], [0, 128, 64], [7, 7, 7], [255, 255, 0], [1, 2, 3]], np.uint8)
    image = Image.fromarray(index)
    image.putpalette(colours.tobytes())
    image.save(tmp_path / "plain.png")
    np.testing.assert_array_equal(read_photo(tmp_path / "plain.png"), colours[index])
    image.save(tmp_path / "keyed.png", transparency=2)
    keyed = np.where((index == 2)[..., None], 255, colours[index])
    np.testing.assert_array_equal(read_photo(tmp_path / "keyed.png"), keyed)


def test_a_transparent_colour(tmp_path: Path, photo: NDArray[np.uint8]) -> None:
    key = tuple(int(value) for value in photo[3, 5])
    path = save(tmp_path / "a.png", photo, transparency=key)
    expected = photo.copy()
    expected[(photo == photo[3, 5]).all(axis=-1)] = 255
    np.testing.assert_array_equal(read_photo(path), expected)


@pytest.fixture(scope="module")
def deep() -> NDArray[np.uint16]:
    """16-bit colours, with the values where cutting off the low byte and rounding differ."""
    values = np.random.default_rng(1).integers(0, 65536, (HEIGHT, WIDTH, 3)).astype(np.uint16)
    values[0, :5, 0] = (0, 128, 129, 0x00FF, 65535)
    return values


def rounded(values: NDArray[np.uint16]) -> NDArray[np.uint8]:
    return np.floor(values / 257 + 0.5).astype(np.uint8)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.ppm"])
def test_16_bit_colour_is_rounded(tmp_path: Path, deep: NDArray[np.uint16], name: str) -> None:
    path = tmp_path / name
    assert cv2.imwrite(str(path), deep[..., ::-1])
    np.testing.assert_array_equal(read_photo(path), rounded(deep))
    assert photo_size(path) == (HEIGHT, WIDTH)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
def test_16_bit_grey_is_rounded(tmp_path: Path, deep: NDArray[np.uint16], name: str) -> None:
    path = tmp_path / name
    assert cv2.imwrite(str(path), deep[..., 0])
    np.testing.assert_array_equal(read_photo(path, "gray")[..., 0], rounded(deep[..., 0]))


def test_a_grey_file_of_ten_bits_is_as_bright_as_one_of_sixteen(tmp_path: Path) -> None:
    levels = np.array([0, 1, 300, 512, 1023])
    (tmp_path / "a.pgm").write_bytes(b"P5\n5 1\n1023\n" + levels.astype(">u2").tobytes())
    np.testing.assert_array_equal(
        read_photo(tmp_path / "a.pgm", "gray").ravel(), np.round(levels / 1023 * 255)
    )


def test_16_bit_alpha(tmp_path: Path, deep: NDArray[np.uint16]) -> None:
    alpha = np.where(np.arange(HEIGHT)[:, None] < 6, 0, 65535).repeat(WIDTH, axis=1).astype(np.uint16)
    path = tmp_path / "a.png"
    assert cv2.imwrite(str(path), np.dstack([deep[..., ::-1], alpha]))
    pixels = read_photo(path)
    assert (pixels[:6] == 255).all()
    np.testing.assert_array_equal(pixels[6:], rounded(deep[6:]))


STORED_AS = {
    1: lambda up: up,
    2: lambda up: up[:, ::-1],
    3: lambda up: up[::-1, ::-1],
    4: lambda up: up[::-1],
    5: lambda up: up.transpose(1, 0, 2),
    6: lambda up: np.rot90(up, 1),
    7: lambda up: up[::-1, ::-1].transpose(1, 0, 2),
    8: lambda up: np.rot90(up, -1),
}
"""How the upright photo lies in a file of each EXIF orientation (6: the camera was turned a quarter left)."""


@pytest.mark.parametrize("orientation", STORED_AS)
@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jpg"])
def test_exif_orientation(
    tmp_path: Path,
    photo: NDArray[np.uint8],
    smooth: NDArray[np.uint8],
    name: str,
    orientation: int,
) -> None:
    upright = smooth if name == "a.jpg" else photo
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100, "subsampling": 0} if name == "a.jpg" else {}
    stored = np.ascontiguousarray(STORED_AS[orientation](upright))
    path = save(tmp_path / name, stored, exif=exif, **options)
    pixels = read_photo(path)
    assert photo_size(path) == upright.shape[:2] == pixels.shape[:2]
    assert np.abs(pixels.astype(int) - upright).max() <= (4 if name == "a.jpg" else 0)


@pytest.mark.parametrize("orientation", STORED_AS)
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bit_files_are_turned_too(
    tmp_path: Path, deep: NDArray[np.uint16], name: str, orientation: int
) -> None:
    stored = np.ascontiguousarray(STORED_AS[orientation](deep))
    path = tmp_path / name
    if name == "a.tif":
        tifffile = pytest.importorskip("tifffile")
        tifffile.imwrite(path, stored, photometric="rgb", extratags=[(274, "H", 1, orientation, True)])
    else:
        assert cv2.imwrite(str(path), stored[..., ::-1])
        exif = Image.Exif()
        exif[0x0112] = orientation
        path.write_bytes(with_png_chunk(path.read_bytes(), b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")))
    assert photo_size(path) == (HEIGHT, WIDTH)
    np.testing.assert_array_equal(read_photo(path), rounded(deep))


def test_the_size_of_a_png_is_read_without_its_pixels(
    tmp_path: Path, photo: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "a.png", photo)
    exif = Image.Exif()
    exif[0x0112] = 6
    end = path.read_bytes().index(b"IEND") - 4
    body = exif.tobytes().removeprefix(b"Exif\0\0")
    behind = path.read_bytes()[:end] + png_chunk(b"eXIf", body) + path.read_bytes()[end:]
    (tmp_path / "behind.png").write_bytes(behind)
    assert read_photo(tmp_path / "behind.png").shape[:2] == (WIDTH, HEIGHT)
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", None)
    assert photo_size(path) == (HEIGHT, WIDTH)
    assert photo_size(tmp_path / "behind.png") == (WIDTH, HEIGHT)


def with_png_chunk(png: bytes, kind: bytes, body: bytes) -> bytes:
    """The file with one chunk more, before the pixels."""
    at = png.index(b"IDAT") - 4
    return png[:at] + png_chunk(kind, body) + png[at:]


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def test_cmyk(tmp_path: Path) -> None:
    """Pillow writes JPEG as Adobe does, with inverted inks: a file that is read without regard to that is a
    negative.
    """
    inks = np.zeros((32, 48, 4), np.uint8)
    inks[:, :16, 0] = 255  # cyan
    inks[:, 16:32, 2] = 200  # some yellow
    inks[:, 32:, 3] = 128  # half black
    expected = np.zeros((32, 48, 3))
    expected[:, :16] = (0, 255, 255)
    expected[:, 16:32] = (255, 255, 55)
    expected[:, 32:] = 127
    for name, tolerance in (("a.jpg", 6), ("a.tif", 1)):
        path = tmp_path / name
        options = {"quality": 100, "subsampling": 0} if name == "a.jpg" else {}
        Image.frombytes("CMYK", (48, 32), inks.tobytes()).save(path, **options)
        pixels = read_photo(path)
        inner = np.s_[4:-4, [6, 24, 42]]  # away from the edges, where JPEG rings
        assert np.abs(pixels[inner] - expected[inner]).max() <= tolerance, name


def test_lab_becomes_srgb(tmp_path: Path, smooth: NDArray[np.uint8]) -> None:
    profiles = [ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")]
    image = ImageCms.profileToProfile(Image.fromarray(smooth), *profiles, outputMode="LAB")
    assert image is not None
    image.save(tmp_path / "a.tif")
    inside = np.abs(read_photo(tmp_path / "a.tif").astype(int) - smooth)
    assert np.median(inside) <= 2


def test_a_profile_changes_no_number(tmp_path: Path, photo: NDArray[np.uint8]) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = save(tmp_path / "a.png", photo, icc_profile=profile)
    assert Image.open(path).info["icc_profile"] == profile
    np.testing.assert_array_equal(read_photo(path), photo)


def encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(2).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, kind)
    return buffer.getvalue()


def floats() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), np.float32)).save(buffer, "TIFF")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "make", "reason"),
    [
        ("empty.png", lambda: b"", "is empty"),
        ("text.jpg", lambda: b"not a photo", "not a photo in a known format"),
        ("cut.png", lambda: encoded("PNG")[:3000], "truncated"),
        ("cut.jpg", lambda: encoded("JPEG")[:3000], "truncated"),
        ("broken.png", lambda: encoded("PNG")[:500] + bytes(200) + encoded("PNG")[700:], "cannot be decoded"),
        ("float.tif", floats, "floating-point pixels"),
        ("program.jpg", lambda: encoded("EPS"), "not a photo in a known format"),
        ("drawing.png", lambda: encoded("ICO"), "not a photo in a known format"),
    ],
)
def test_unusable_files_are_named(tmp_path: Path, name: str, make: Callable[[], bytes], reason: str) -> None:
    path = tmp_path / name
    path.write_bytes(make())
    with pytest.raises(PhotoError, match=reason) as caught:
        read_photo(path)
    assert str(path) in str(caught.value)
    assert caught.value.path == path


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PhotoError, match="does not exist"):
        read_photo(tmp_path / "nowhere.png")


def test_listing(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "deep/er/c.tiff", ".hidden.png", ".thumbs/d.png", "notes.txt", "e.gif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = [path.relative_to(tmp_path).as_posix() for path in list_photos(tmp_path)]
    assert found == ["a.jpg", "b.PNG", "deep/er/c.tiff", "e.gif"]


def test_a_directory_without_tags_is_said_to_be_damaged(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"II*\0" + struct.pack("<IHI", 8, 0, 0) + bytes(64))
    with pytest.raises(PhotoError, match=r"cannot be decoded: the file is damaged \(KeyError 256\)"):
        read_photo(tmp_path / "a.tif")
