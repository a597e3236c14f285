"""One small file of every kind of photo, made in code, with the pixels that it holds."""

import functools
import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from run_folders import photo

from restora.photos.blocks import png_chunk
from restora.photos.header import PNG_SIGNATURE

HEIGHT, WIDTH = 40, 56


@dataclass(frozen=True)
class Kind:
    """The file's bytes; `pixels` (H,W,C) and `alpha` (H,W) as it holds them; `near` is the error of lossy
    formats."""

    data: bytes
    pixels: NDArray[np.generic]
    alpha: NDArray[np.generic] | None = None
    near: int = 0


def colours() -> NDArray[np.uint8]:
    return photo(HEIGHT, WIDTH)


def deep_colours() -> NDArray[np.uint16]:
    """16-bit pixels that 8 bits cannot hold."""
    noise = np.random.default_rng(0).integers(0, 257, (HEIGHT, WIDTH, 3))
    return (colours().astype(np.int64) * 256 + noise).clip(0, 65535).astype(np.uint16)


def cut_out(dtype: type = np.uint8) -> NDArray[np.generic]:
    """Alpha (H,W) with clear, half and opaque parts."""
    top = np.iinfo(dtype).max
    alpha = np.full((HEIGHT, WIDTH), top, dtype)
    alpha[:, :10], alpha[:, 10:20] = 0, top // 3
    return alpha


def ten_bits() -> NDArray[np.uint16]:
    """(H,W,3) numbers of 10 bits."""
    return deep_colours() >> 6


def from_ten(values: NDArray[np.uint16]) -> NDArray[np.uint16]:
    return np.round(values / 1023 * 65535).astype(np.uint16)


def saved(pixels: NDArray[np.generic] | Image.Image, format_name: str, **options: object) -> bytes:
    out = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(out, format_name, **options)
    return out.getvalue()


def by_opencv(suffix: str, values: NDArray[np.generic]) -> bytes:
    order = {3: [2, 1, 0], 4: [2, 1, 0, 3]}
    values = values[..., order[values.shape[2]]] if values.ndim == 3 else values
    done, file = cv2.imencode(suffix, values)
    assert done
    return file.tobytes()


def tiff(
    values: NDArray[np.generic],
    *,
    order: str = "<",
    planar: bool = False,
    photometric: int | None = None,
    extra: tuple[int, ...] = (),
    sample_format: int = 1,
    tags: dict[int, tuple[int, ...]] | None = None,
    tile: int = 0,
    compressed: bool = False,
    predictor: bool = False,
    big: bool = False,
    bits: int | None = None,
    data: bytes | None = None,
) -> bytes:
    """A TIFF file put together by hand: nothing of it comes from the code under test."""
    height, width = values.shape[:2]
    values = values.reshape(height, width, -1)
    samples = values.shape[2]
    planes = [values[..., [n]] for n in range(samples)] if planar else [values]

    def pieces(plane: NDArray[np.generic]) -> list[bytes]:
        parts = [plane[top : top + 16] for top in range(0, height, 16)]
        if tile:
            full = np.zeros(
                (-(-height // tile) * tile, -(-width // tile) * tile, plane.shape[2]), plane.dtype
            )
            full[:height, :width] = plane
            parts = [
                full[top : top + tile, left : left + tile]
                for top in range(0, height, tile)
                for left in range(0, width, tile)
            ]
        if predictor:
            parts = [np.concatenate([p[:, :1], p[:, 1:] - p[:, :-1]], axis=1) for p in parts]
        raw = [part.astype(part.dtype.newbyteorder(order)).tobytes() for part in parts]
        return [zlib.compress(part) for part in raw] if compressed else raw

    body = [data] if data is not None else [piece for plane in planes for piece in pieces(plane)]
    number, kind, inline = ("Q", 16, 8) if big else ("I", 4, 4)
    start = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}H", 43 if big else 42)
    start += struct.pack(f"{order}HH", 8, 0) if big else b""
    first = len(start) + (8 if big else 4)
    offsets = [first + sum(map(len, body[:index])) for index in range(len(body))]
    held = {
        256: (width,),
        257: (height,),
        258: (bits or values.itemsize * 8,) * samples,
        259: (8 if compressed else 1,),
        262: (photometric if photometric is not None else 2 if samples >= 3 else 1,),
        277: (samples,),
        284: (2 if planar else 1,),
        317: (2 if predictor else 1,),
        339: (sample_format,) * samples,
    }
    held |= {338: extra} if extra else {}
    held |= (
        {322: (tile,), 323: (tile,), 324: tuple(offsets), 325: tuple(map(len, body))}
        if tile
        else {273: tuple(offsets), 278: (height if data else 16,), 279: tuple(map(len, body))}
    )
    held |= tags or {}
    at = offsets[-1] + len(body[-1])
    entries, lists = b"", b""
    for tag in sorted(held):
        packed = struct.pack(f"{order}{len(held[tag])}{number}", *held[tag])
        if len(packed) > inline:
            packed, lists = struct.pack(f"{order}{number}", at + len(lists)), lists + packed
        entries += struct.pack(f"{order}HH{number}", tag, kind, len(held[tag])) + packed
    count = struct.pack(f"{order}{'Q' if big else 'H'}", len(held))
    directory = struct.pack(f"{order}{number}", at + len(lists))
    return start + directory + b"".join(body) + lists + count + entries + bytes(inline)


def pnm(kind: str, values: NDArray[np.generic], white: int) -> bytes:
    header = f"{kind}\n# a comment\n{WIDTH} {HEIGHT}\n{white}\n".encode()
    if kind in ("P2", "P3"):
        return header + b" ".join(str(value).encode() for value in values.ravel())
    return header + values.astype(">u2" if white > 255 else "u1").tobytes()


def _keyed(levels: NDArray[np.uint8], bits: int) -> Kind:
    """A grey PNG of numbers (H,W) of 2 or 4 bits, the middle one of which is transparent."""
    key = int(np.median(levels))
    numbers = np.unpackbits(levels[..., None], axis=2)[..., -bits:]
    rows = np.packbits(numbers.reshape(len(levels), -1), axis=1)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", *levels.shape[::-1], bits, 0, 0, 0, 0)),
        (b"tRNS", struct.pack(">H", key)),
        (b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))),
        (b"IEND", b""),
    )
    data = PNG_SIGNATURE + b"".join(png_chunk(*chunk) for chunk in chunks)
    alpha = np.where(levels == key, 0, 255).astype(np.uint8)
    return Kind(data, levels[..., None] * np.uint8(255 // (2**bits - 1)), alpha)


def packed_12_bits(values: NDArray[np.uint16]) -> bytes:
    bits = (values[..., None] >> np.arange(11, -1, -1)) & 1
    return np.packbits(bits.reshape(values.shape[0], -1).astype(np.uint8), axis=1).tobytes()


def multiplied(pixels: NDArray[np.generic], alpha: NDArray[np.generic]) -> NDArray[np.generic]:
    top = np.iinfo(pixels.dtype).max
    return np.round(pixels.astype(float) * alpha[..., None] / top).astype(pixels.dtype)


def divided(pixels: NDArray[np.generic], alpha: NDArray[np.generic]) -> NDArray[np.generic]:
    top = np.iinfo(pixels.dtype).max
    with np.errstate(divide="ignore", invalid="ignore"):
        out = np.round(pixels.astype(float) * top / alpha[..., None])
    return np.where(alpha[..., None] > 0, out.clip(0, top), pixels).astype(pixels.dtype)


def _tiffs() -> dict[str, Kind]:
    rgb, deep = colours(), deep_colours()
    grey, deep_grey, alpha, deep_alpha = rgb[..., :1], deep[..., :1], cut_out(), cut_out(np.uint16)
    made = {
        "rgb8.tif": Kind(tiff(rgb), rgb),
        "grey8.tif": Kind(tiff(grey), grey),
        "white_is_zero8.tif": Kind(tiff(255 - grey, photometric=0), grey),
        "white_is_zero16.tif": Kind(tiff(65535 - deep_grey, photometric=0), deep_grey),
        "rgba8.tif": Kind(tiff(np.dstack([rgb, alpha]), extra=(2,)), rgb, alpha),
        "rgba16.tif": Kind(tiff(np.dstack([deep, deep_alpha]), extra=(2,)), deep, deep_alpha),
        "grey_alpha16.tif": Kind(tiff(np.dstack([deep_grey, deep_alpha]), extra=(2,)), deep_grey, deep_alpha),
        "by_opencv.tif": Kind(by_opencv(".tif", deep), deep),
        "twelve_bits.tif": Kind(
            tiff(deep >> 4, bits=12, data=packed_12_bits(deep >> 4)),
            np.round((deep >> 4) / 4095 * 65535).astype(np.uint16),
        ),
        "orientation16.tif": Kind(tiff(deep, tags={274: (6,)}), np.rot90(deep, -1)),
    }
    for name, colour, clear in (("8", rgb, alpha), ("16", deep, deep_alpha)):
        held = multiplied(colour, clear)
        near = 1 if name == "8" else 0  # Pillow divides 8 bits without rounding
        made[f"multiplied{name}.tif"] = Kind(
            tiff(np.dstack([held, clear]), extra=(1,)), divided(held, clear), clear, near
        )
    for name, dark, colour, clear in (("8", grey, rgb, alpha), ("16", deep_grey, deep, deep_alpha)):
        top, held = np.iinfo(dark.dtype).max, multiplied(colour, clear)
        clear_grey = np.dstack([dark, clear])
        made |= {
            f"grey_alpha_planar{name}.tif": Kind(tiff(clear_grey, extra=(2,), planar=True), dark, clear),
            f"white_is_zero_alpha{name}.tif": Kind(
                tiff(np.dstack([top - dark, clear]), photometric=0, extra=(2,)), dark, clear
            ),
            f"multiplied_planar{name}.tif": Kind(
                tiff(np.dstack([held, clear]), extra=(1,), planar=True, compressed=True, predictor=True),
                divided(held, clear),
                clear,
            ),
            f"alpha_planar_tiles{name}.tif": Kind(
                tiff(
                    np.dstack([colour, clear]),
                    extra=(2,),
                    planar=True,
                    tile=16,
                    compressed=True,
                    predictor=True,
                ),
                colour,
                clear,
            ),
        }
    layouts: dict[str, dict[str, object]] = {
        "": {},
        "_planar": {"planar": True},
        "_planar_compressed": {"planar": True, "compressed": True, "predictor": True},
        "_compressed": {"compressed": True, "predictor": True},
        "_big_endian": {"order": ">", "compressed": True, "predictor": True},
        "_tiles": {"tile": 16, "compressed": True, "predictor": True},
        "_planar_tiles": {"tile": 16, "planar": True},
        "_bigtiff": {"big": True},
        "_bigtiff_planar": {"big": True, "planar": True, "compressed": True},
    }
    return made | {f"rgb16{name}.tif": Kind(tiff(deep, **options), deep) for name, options in layouts.items()}  # type: ignore[arg-type]


def _pngs() -> dict[str, Kind]:
    rgb, deep = colours(), deep_colours()
    grey, deep_grey, alpha, deep_alpha = rgb[..., :1], deep[..., :1], cut_out(), cut_out(np.uint16)
    few = Image.fromarray(rgb).quantize(32)
    palette = np.asarray(few.convert("RGB"))
    keyed = np.asarray(few) == 5
    return {
        "rgb8.png": Kind(saved(rgb, "PNG"), rgb),
        "grey8.png": Kind(saved(grey[..., 0], "PNG"), grey),
        "rgba8.png": Kind(saved(np.dstack([rgb, alpha]), "PNG"), rgb, alpha),
        "grey_alpha8.png": Kind(saved(np.dstack([grey, alpha]), "PNG"), grey, alpha),
        "palette.png": Kind(saved(few, "PNG"), palette),
        "palette_clear.png": Kind(
            saved(few, "PNG", transparency=5), palette, np.where(keyed, 0, 255).astype(np.uint8)
        ),
        "one_bit.png": Kind(saved(grey[..., 0] > 128, "PNG"), np.where(grey > 128, 255, 0).astype(np.uint8)),
        **{f"grey{bits}_clear.png": _keyed(grey[..., 0] >> (8 - bits), bits) for bits in (2, 4)},
        "rgb16.png": Kind(by_opencv(".png", deep), deep),
        "grey16.png": Kind(by_opencv(".png", deep_grey[..., 0]), deep_grey),
        "rgba16.png": Kind(by_opencv(".png", np.dstack([deep, deep_alpha])), deep, deep_alpha),
        "opaque.png": Kind(
            saved(np.dstack([rgb, np.full_like(alpha, 255)]), "PNG"), rgb, np.full_like(alpha, 255)
        ),
    }


def _others() -> dict[str, Kind]:
    rgb, deep, ten = colours(), deep_colours(), ten_bits()
    few = Image.fromarray(rgb).quantize(64)
    made = {
        "rgb8.ppm": Kind(pnm("P6", rgb, 255), rgb),
        "grey8.pgm": Kind(pnm("P5", rgb[..., 0], 255), rgb[..., :1]),
        "rgb10.ppm": Kind(pnm("P6", ten, 1023), from_ten(ten)),
        "grey10.pgm": Kind(pnm("P5", ten[..., 0], 1023), from_ten(ten[..., :1])),
        "rgb16.ppm": Kind(pnm("P6", deep, 65535), deep),
        "written_out.ppm": Kind(pnm("P3", ten, 1023), from_ten(ten)),
        "rgb8.bmp": Kind(saved(rgb, "BMP"), rgb),
        "lossless.webp": Kind(saved(rgb, "WEBP", lossless=True), rgb),
        "still.gif": Kind(saved(few, "GIF"), np.asarray(few.convert("RGB"))),
        "lossless.jp2": Kind(saved(rgb, "JPEG2000"), rgb),
    }
    for name, format_name, options in (
        *(
            (f"photo{suffix}", "JPEG", {"quality": 95, "subsampling": 0})
            for suffix in (".jpg", ".jfif", ".jpe")
        ),
        ("photo.avif", "AVIF", {"quality": 95, "subsampling": "4:4:4"}),
        ("lossy.webp", "WEBP", {"quality": 90}),
    ):
        data = saved(rgb, format_name, **options)
        with Image.open(io.BytesIO(data)) as image:
            made[name] = Kind(data, np.asarray(image.convert("RGB")))
    return made


@functools.cache
def photo_kinds() -> dict[str, Kind]:
    """By file name; made once."""
    return _tiffs() | _pngs() | _others()


def bad_files() -> dict[str, Callable[[], bytes]]:
    """Files with a photo's name that cannot be read, by name."""
    jpeg, png = saved(colours(), "JPEG"), saved(colours(), "PNG")
    deep = by_opencv(".png", deep_colours())
    bomb = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    return {
        "empty.png": lambda: b"",
        "text.jpg": lambda: b"not a photo",
        "cut.jpg": lambda: jpeg[: len(jpeg) // 2],
        "cut.png": lambda: png[: len(png) // 2],
        "cut_deep.png": lambda: deep[: len(deep) // 2],
        "broken.png": lambda: png[:200] + bytes(100) + png[300:],
        "cut.ppm": lambda: pnm("P6", deep_colours(), 65535)[:500],
        "cut.tif": lambda: tiff(deep_colours())[:900],
        "cut.webp": lambda: saved(colours(), "WEBP")[:60],
        "big_endian_bigtiff.tif": lambda: tiff(deep_colours(), order=">", big=True),
        "float.tif": lambda: tiff(deep_colours().astype(np.float32), sample_format=3),
        "half.tif": lambda: tiff((deep_colours() / 65535).astype(np.float16), sample_format=3),
        "whole_32.tif": lambda: tiff(deep_colours().astype(np.uint32)),
        "lab.tif": lambda: tiff(colours(), photometric=9),
        "planar_cmyk16.tif": lambda: tiff(
            np.dstack([deep_colours(), cut_out(np.uint16)]), photometric=5, planar=True
        ),
        "deep.jp2": lambda: by_opencv(".jp2", deep_colours()),
        "signed.tif": lambda: tiff(deep_colours(), sample_format=2),
        "signed8.tif": lambda: tiff(colours(), sample_format=2),
        "unspecified.tif": lambda: tiff(np.dstack([deep_colours(), cut_out(np.uint16)]), extra=(0,)),
        "unspecified8.tif": lambda: tiff(np.dstack([colours(), cut_out()]), extra=(0,)),
        "lab16.tif": lambda: tiff(deep_colours(), photometric=8),
        "cmyk16.tif": lambda: tiff(np.dstack([deep_colours(), cut_out(np.uint16)]), photometric=5),
        "bomb.png": lambda: png[:16] + bomb + struct.pack(">I", zlib.crc32(b"IHDR" + bomb)) + png[33:],
        "garbage.heic": lambda: struct.pack(">I4s4sI", 24, b"ftyp", b"heic", 0) + b"mif1heic" + bytes(40),
        "garbage.dng": lambda: tiff(colours(), tags={50706: (1,)}),
        "clip.mp4": lambda: b"\0\0\0\x18ftypmp42" + bytes(40),
        "picture.jxl": lambda: b"\xff\x0a" + bytes(40),
    }
