"""Small video clips of every kind, made by PyAV."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

av = pytest.importorskip("av", reason="pip install 'restora[video]'")

FRAMES, WIDTH, HEIGHT = 6, 48, 32


def picture(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """(H,W,3) uint8: dull colours, which survive the conversion, that move from frame to frame."""
    rows, columns = np.mgrid[:height, :width]
    waves = [np.sin((rows * a + columns * b + 5 * number) / 9) for a, b in ((1, 0), (0, 1), (1, 1))]
    return np.stack([128 + 24 * wave for wave in waves], axis=-1).astype(np.uint8)


def write_clip(
    path: Path,
    *,
    frames: int = FRAMES,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    codec: str = "libx264",
    pixels: str = "yuv420p",
    rate: Fraction | int = 25,
    times: Sequence[int] | None = None,
    base: Fraction | None = None,
    sound: bool = False,
    turned: int | None = None,
    ratio: Fraction | None = None,
    metadata: dict[str, str] | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    chapters: list[dict[str, Any]] | None = None,
    container: str | None = None,
    **tags: int,
) -> Path:
    """A clip of `picture`; `times` in units of `base`; `tags` are of the colours, by PyAV's names."""
    width, height = size
    with av.open(
        str(path), "w", format=container, container_options=container_options or {}, metadata_errors="replace"
    ) as out:
        chosen = {"crf": "1"} if options is None and codec == "libx264" else options or {}
        stream = out.add_stream(codec, rate=rate, options=chosen)
        context = stream.codec_context
        context.width, context.height, context.pix_fmt = width, height, pixels
        context.time_base = base or 1 / Fraction(rate)
        if ratio is not None:
            context.sample_aspect_ratio = ratio
        if turned is not None:
            stream.set_display_rotation(turned)
        for name, value in tags.items():
            setattr(context, name, value)
        voice = out.add_stream("aac", rate=48000, layout="mono") if sound else None
        out.metadata.update(metadata or {})
        if chapters:
            out.set_chapters(chapters)
        for number in range(frames):
            given = av.VideoFrame.from_ndarray(picture(number, height, width), format="rgb24")
            frame = given.reformat(
                format=pixels,
                dst_colorspace="itu709" if tags.get("colorspace") == 1 else "itu601",
                dst_color_range=tags.get("color_range", 1),
            )
            for name, value in tags.items():
                if name in ("colorspace", "color_range", "color_trc", "color_primaries"):
                    setattr(frame, name, value)
            frame.pts = number if times is None else times[number]
            frame.time_base = context.time_base
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        if voice is not None:
            _add_sine(out, voice, frames / Fraction(rate))
    return path


def _add_sine(out: Any, voice: Any, seconds: Fraction) -> None:
    samples = np.sin(np.arange(int(seconds * 48000)) * 2 * np.pi * 440 / 48000).astype(np.float32) / 2
    for start in range(0, len(samples), 1024):
        part = av.AudioFrame.from_ndarray(samples[None, start : start + 1024], format="fltp", layout="mono")
        part.sample_rate, part.pts, part.time_base = 48000, start, Fraction(1, 48000)
        out.mux(voice.encode(part))
    out.mux(voice.encode(None))


def read_planes(path: Path) -> list[list[np.ndarray]]:
    """The numbers of every frame, plane by plane."""
    from restora.video.pixels import planes_of

    with av.open(str(path)) as container:
        return [
            [plane.numpy() for plane in planes_of(frame)]
            for frame in container.decode(container.streams.best("video"))
        ]


def read_times(path: Path) -> list[Fraction]:
    """When each frame is shown, in seconds."""
    with av.open(str(path)) as container:
        return [frame.pts * frame.time_base for frame in container.decode(video=0)]


def packets(path: Path, kind: str) -> list[bytes]:
    """The compressed data of the first stream of this type."""
    with av.open(str(path)) as container:
        stream = getattr(container.streams, kind)[0]
        return [bytes(packet) for packet in container.demux(stream) if packet.size]
