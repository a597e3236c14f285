"""Degrades the frames of clips: a clip has one severity, each of its frames random fields of its own.

Noise differs from frame to frame and its level does not, so a video network can gain from the neighbours of a
frame, and one noise-level map describes all of them. The same holds of every degradation: of its parameters
only the keys of random fields (`degradations/base.py`) are those of the frame; all others are those of the
middle frame, whose degraded version is that of a photo with the clip's key.

Legend: B clips, T frames, C channels of a frame, H height, W width, s scale, K condition channels.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from restora.degradations.base import Degradation, Degraded, Params
from restora.image import full_precision
from restora.keyed import KeyedGenerator

FIELD = "key"
"""The name of parameters that are keys of random fields."""


def frame_keys(keys: Tensor, frames: int) -> Tensor:
    """int64 (B,) -> (B,T): the key of a clip for its middle frame, keys forked from it for the others."""
    own = KeyedGenerator(keys)
    middle = frames // 2
    columns = [keys if t == middle else own.fork(f"frame {t - middle}").keys for t in range(frames)]
    return torch.stack(columns, dim=1)


def degrade_frames(degradation: Degradation, clips: Tensor, keys: Tensor) -> Degraded:
    """float32 (B,T,C,H,W) and int64 (B,T) -> frames folded into channels (B,T·C,H/s,W/s).

    The condition is that of the middle frame, (B,K,H/s,W/s).
    """
    batch, frames, *shape = clips.shape
    channels, height, width = shape
    folded = clips.flatten(0, 1)  # (B·T,C,H,W)
    with full_precision(clips.device):
        drawn = degradation.sample((batch * frames, channels, height, width), KeyedGenerator(keys.flatten()))
        image = degradation.degrade(folded, _shared(drawn, frames))  # (B·T,C,H/s,W/s)
        condition = degradation.condition(clips[:, frames // 2], _middle(drawn, frames))
    return Degraded(image.view(batch, -1, *image.shape[2:]), condition)


def _shared(params: Params, frames: int) -> Params:
    """All values but the keys of fields, (B·T,…), replaced by those of the middle frame of each clip."""

    def shared(name: str, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: shared(key, one) for key, one in value.items()}
        if name == FIELD or not isinstance(value, Tensor):
            return value
        return value[frames // 2 :: frames].repeat_interleave(frames, dim=0)

    return {name: shared(name, value) for name, value in params.items()}


def _middle(params: Params, frames: int) -> Params:
    """The parameters of the middle frames, (B,…)."""

    def middle(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: middle(one) for key, one in value.items()}
        return value[frames // 2 :: frames] if isinstance(value, Tensor) else value

    return {name: middle(value) for name, value in params.items()}
