"""How much a restored video flickers, against its clean version.

Legend: T frames, C channels, H height, W width.
"""

from torch import Tensor


def temporal_error(restored: Tensor, clean: Tensor) -> float:
    """Mean |(r_t - r_{t-1}) - (c_t - c_{t-1})| over consecutive frames, on the 8-bit scale.

    Both are (T,C,H,W) on the [0,1] scale, T of at least 2. It is 0 if the errors of all frames are the same,
    and for independent errors sqrt(2) times as large as those of a frame. No motion is estimated: what moves
    in the clean video must move in the restored one.
    """
    if restored.shape != clean.shape or restored.ndim != 4 or len(restored) < 2:
        raise ValueError(
            "expected two videos (T,C,H,W) of equal shape and at least 2 frames, got "
            f"{tuple(restored.shape)} and {tuple(clean.shape)}"
        )
    errors = restored.float() - clean.float()
    return float((errors[1:] - errors[:-1]).abs().mean()) * 255
