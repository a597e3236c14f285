"""Refuses settings of a data module that do not go together, with what to set."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, get_args

from restora.data.clips import check_frames
from restora.data.crops import check_reductions
from restora.degradations.base import Degradation
from restora.degradations.compose.composition import OnDemand
from restora.degradations.identity import Identity
from restora.photos.reading import channel_count, channel_word

if TYPE_CHECKING:
    from restora.data.module import PhotoData

Target = Literal["clean", "noisy"]
SMALLEST_EVALUATED = 32
"""The smallest side of a degraded validation or test photo; below it SSIM and deep networks mean little."""


def check_data(data: "PhotoData") -> None:
    """Raises ValueError for settings that do not go together, or not with the source."""
    if any(isinstance(part, OnDemand) for part in _below(data.degradation)):
        raise ValueError(
            "on_demand follows validation only where it is the whole degradation, not a stage of one"
        )
    if data.source.paired and not isinstance(data.degradation, Identity):
        raise ValueError(
            f"the photos of {data.source.name} come with their degraded partners, so the degradation "
            f"{type(data.degradation).__name__} would not be used: set degradation=identity"
        )
    if data.source.holds == "degraded" and not isinstance(data.degradation, Identity):
        raise ValueError(
            f"the photos of {data.source.name} are degraded (data.source.holds=degraded), so the "
            f"degradation {type(data.degradation).__name__} would come on top: set degradation=identity"
        )
    if data.target not in get_args(Target):
        raise ValueError(f"data.target must be clean or noisy, got {data.target!r}")
    if data.target == "noisy" and data.comes_degraded:
        raise ValueError(
            f"data.target=noisy degrades photos twice, and those of {data.source.name} come degraded: "
            "set data.target=clean (the partner in clean/ may be noisy too), or for single noisy photos "
            "objective=neighbor2neighbor"
        )
    if data.target == "noisy" and data.scale != 1:
        raise ValueError(
            f"data.target=noisy: the degraded photo is ×{data.scale} smaller than what is to be learnt: "
            "set data.target=clean"
        )
    count, possible = channel_count(data.channels), data.source.channel_counts
    if possible is not None and count not in possible:
        words = " or ".join(channel_word(number) for number in sorted(possible, reverse=True))
        raise ValueError(
            f"data.channels={data.channels}, but the photos of {data.source.name} never have {count} "
            f"channels: set data.channels={words}, or choose a source that gives them"
        )
    if data.geometry not in ("d4", "hflip", "none"):
        raise ValueError(f"data.geometry must be d4, hflip or none, got {data.geometry!r}")
    check_reductions(data.reductions, degraded=data.source.name if data.comes_degraded else None)
    for name, value, least in (
        ("steps_per_epoch", data.steps_per_epoch, 1),
        ("val_crop", data.val_crop, SMALLEST_EVALUATED),
        ("test_crop", data.test_crop, SMALLEST_EVALUATED),
        ("workers", None if data.workers == "auto" else data.workers, 0),
    ):
        if value is not None and value < least:
            raise ValueError(f"data.{name} must be at least {least}, got {value}")
    _check_clips(data)


def _check_clips(data: "PhotoData") -> None:
    check_frames(data.frames)
    if data.given_motion is not None and (data.frames == 1 or data.source.clips):
        said = "there is one frame" if data.frames == 1 else f"the frames of {data.source.name} are real ones"
        fix = "set data.frames=5, or" if data.frames == 1 else "set"
        raise ValueError(f"data.motion moves photos to make clips, and {said}: {fix} data.motion=null")
    if data.frames == 1:
        return
    if data.comes_degraded:
        raise ValueError(
            f"data.frames={data.frames}: the frames of a clip are degraded here, and the photos of "
            f"{data.source.name} come degraded: set data.frames=1, or choose clean photos or data=clips"
        )
    if data.source.clips and data.transforms:
        raise ValueError(
            "data.transforms would change each frame of a video in its own way: set data.transforms=null"
        )


def _below(degradation: Degradation) -> Iterator[Degradation]:
    """All parts of a composition, and their parts."""
    for part in degradation.parts:
        yield part
        yield from _below(part)
