"""Values that mean the same in every command: precisions, durations, tiles, threads, tasks.

Note: the precision `auto` is bfloat16 where the processor multiplies in it, and float32 elsewhere. Without
such instructions, which most processors of laptops lack, a training step in bfloat16 took 7 to 17 times as
long as in float32, and restoring a photo with a model of the zoo 10 to 12 times (AMD EPYC 7003, torch 2.13).

A duration is written as `90s`, `2min`, `1h30min` or `3d`. Lightning's `DD:HH:MM:SS`, `HH:MM:SS` and the
keywords of a timedelta are read too, as older stored configurations contain them.
"""

import platform
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Literal

Precision = Literal["float32", "bfloat16", "float16"]

_PRECISIONS: dict[Precision, tuple[str, ...]] = {
    "float32": ("float32", "fp32", "32", "32-true"),
    "bfloat16": ("bfloat16", "bf16", "bf16-mixed"),
    "float16": ("float16", "fp16", "16", "16-mixed"),
}
"""Each precision with its other names; the last is Lightning's. Below float32 the precision is mixed: weights
stay float32, and operations that gain from the type use it."""
AUTO = "auto"
"""The precision that depends on the device."""
_X86 = ("x86_64", "AMD64")
TASKS = {
    "photo": "cleans everyday photos: grain, colour specks, JPEG blocks",
    "denoise": "removes noise",
    "super_resolution": "enlarges photos",
    "deblur": "removes blur",
    "jpeg": "removes JPEG artefacts",
    "inpaint": "fills missing regions",
    "colourise": "colours grey photos",
    "colour": "brings back faded colours",
    "derain": "removes rain",
    "dehaze": "removes haze",
    "restore": "restores damaged photos",
}
"""The tasks of models, with a description of each."""
_UNITS = {"d": "days", "h": "hours", "min": "minutes", "s": "seconds"}
_DURATION = re.compile(r"(?=.)(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)min)?(?:(\d+(?:\.\d+)?)s)?")


def task(value: str | None) -> str | None:
    """A key of `TASKS`, or None. Raises ValueError."""
    if value is not None and value not in TASKS:
        raise ValueError(f"there is no task {value!r}: use one of {', '.join(TASKS)}")
    return value


def precision(value: Any, device: str) -> Precision:
    """The precision that a word names on a type of device. Raises ValueError."""
    if value == AUTO:
        return "bfloat16" if has_bfloat16(device) else "float32"
    for name, words in _PRECISIONS.items():
        if str(value) in words:
            return name
    raise ValueError(f"precision={value}: expected one of {PRECISIONS}")


PRECISIONS = ", ".join([*(f"{name} ({', '.join(words[1:])})" for name, words in _PRECISIONS.items()), AUTO])


def trainer_precision(value: Any, device: str) -> str:
    """Lightning's name of a precision. Raises ValueError, also for one that only Lightning has (`bf16-true`).

    Parameters are float32 in every precision, as photos, losses and averages are.
    """
    return _PRECISIONS[precision(value, device)][-1]


def precision_in_one_spelling(value: Any) -> Any:
    """Lightning's name of a precision; `auto`, and what is no precision, as it is."""
    return next((words[-1] for words in _PRECISIONS.values() if str(value) in words), value)


def has_bfloat16(device: str) -> bool:
    """Whether this machine's device of a type, such as cpu or cuda, multiplies in bfloat16 itself.

    Of CPUs, only x86 has been measured: on others the answer is no.
    """
    import torch

    if device == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    if device not in ("cuda", "gpu") or not torch.cuda.is_available():
        return False
    # on a GPU without such units, torch's default answer is yes, as it emulates them in float32
    return torch.cuda.is_bf16_supported(including_emulation=False)


def slow_precision(name: Precision, device: str) -> str:
    """What to say of a precision that is slower than float32 on this machine's device; empty for others."""
    # x86 processors with instructions for float16 have those for bfloat16
    if name == "float32" or device != "cpu" or platform.machine() not in _X86 or has_bfloat16("cpu"):
        return ""
    return (
        f"this processor has no instructions for {name}, and takes several times as long as in float32: use "
        "the precision float32, or auto, which is bfloat16 only where that is fast"
    )


def seconds(value: Any, where: str) -> float | None:
    """A duration in seconds, None for none. Raises ValueError that names the key `where`."""
    found = _timedelta(value)
    if found is not None and found.total_seconds() > 0:
        return found.total_seconds()
    if value is None:
        return None
    raise ValueError(f"{where}={value} is not a duration: write it as 90s, 2min, 1h30min or 3d")


def _timedelta(value: Any) -> timedelta | None:
    if isinstance(value, timedelta):
        return value
    if isinstance(value, Mapping):
        try:
            return timedelta(**{str(key): number for key, number in value.items()})
        except TypeError:
            return None
    if not isinstance(value, str):
        return None
    written = value.replace(" ", "")
    if match := _DURATION.fullmatch(written):
        units = zip(_UNITS.values(), match.groups(), strict=True)
        return timedelta(**{unit: float(number) for unit, number in units if number})
    parts = written.split(":")
    if len(parts) in (3, 4) and all(part.isdecimal() for part in parts):
        units = zip(("seconds", "minutes", "hours", "days"), reversed(parts), strict=False)
        return timedelta(**{unit: int(number) for unit, number in units})
    return None


def duration(length: float) -> str:
    """Seconds as a duration of a configuration: 5400 is 1h30min."""
    words, left = "", round(length, 3)
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        count, left = divmod(left, size)
        words += f"{count:.0f}{unit}" if count else ""
    return words + f"{left:g}s" if left or not words else words


def about(length: float) -> str:
    """Seconds in a readable unit: 5 s, 12 min, 7.5 h, 26 days."""
    for size, unit in ((48 * 3600, "days"), (90 * 60, "h"), (120, "min")):
        if length >= size:
            number = length / {"days": 86400, "h": 3600, "min": 60}[unit]
            return f"{number:,.0f} {unit}" if number >= 10 else f"{number:.2g} {unit}"
    return f"{length:.2g} s" if length < 10 else f"{length:.0f} s"


def tile(value: Any, default: int) -> int:
    """The side of a tile in pixels of the input, 0 for the whole photo at once; None gives `default`."""
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"tile must be a number of pixels, or 0 for the photo in one piece; got {value}")
    return value


def use_threads(count: Any) -> None:
    """Makes torch use `count` CPU threads; None leaves the number to torch. Raises ValueError."""
    check_threads(count)
    if count is not None:
        import torch

        torch.set_num_threads(count)


def check_threads(count: Any) -> None:
    """Raises ValueError if `count` is not a number of threads."""
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
        raise ValueError(
            f"threads={count}: expected a whole number of 1 or more; left out (null), torch chooses"
        )
