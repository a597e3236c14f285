"""Shared pixel operations: rounding to 8 bits, luminance, and MATLAB's resize.

Rounding is as in saving a photo; luminance is Y of ITU-R BT.601 as in MATLAB's rgb2ycbcr. Resizing is two
matrix products: bicubic, bilinear, area and nearest, at any scale.

`bicubic` with anti-aliasing is MATLAB's `imresize`, the standard for super-resolution: Keys' cubic (a =
-1/2), widened by the reduction, pixel centres at half integers, borders mirrored with the edge pixel
repeated, weights that sum to one. A matrix is made once per size in float64 on the host, so that every
device multiplies by the same numbers.

Legend: B samples, C channels, H height, W width, n input size, m output size.
"""

import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from numbers import Real
from typing import Any, Literal, TypeVar, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

log = logging.getLogger(__name__)
Kernel = Literal["bicubic", "bilinear", "area", "nearest"]
KERNELS: tuple[str, ...] = get_args(Kernel)
# rows are Y, Cb and Cr of ITU-R BT.601 for R, G and B in [0,1]: MATLAB's rgb2ycbcr, whose offsets are 16,
# 128, 128
YCBCR = ((65.481, 128.553, 24.966), (-37.797, -74.203, 112.0), (112.0, -93.786, -18.214))
YCBCR_OFFSET = (16.0, 128.0, 128.0)
RGB_PER_LUMINANCE = 255 / 219
"""How much each of R, G and B grows per unit of Y at constant Cb and Cr."""
FULL_RANGE_LUMA = (0.299, 0.587, 0.114)
"""Weights of R, G and B in a grey photo from black to white (0 to 255): BT.601 without the range of video.
The grey sets of denoising were made with MATLAB's rgb2gray, whose weights `photos/reading.py` has."""
_SUPPORT = {"bicubic": 2.0, "bilinear": 1.0}
Distance = TypeVar("Distance", float, Tensor, NDArray[np.float64])


def round_to_8_bits(photo: Tensor) -> Tensor:
    """Rounds photos in [0,1] to the 256 levels of an 8-bit file."""
    return photo.mul(255).round_().div_(255)


def to_8_bit(photo: Tensor) -> Tensor:
    """Photos on the [0,1] scale as after saving: clamped, then rounded to 8 bits."""
    return levels(photo).div_(255)


def levels(photo: Tensor, white: int = 255) -> Tensor:
    """Photos on the [0,1] scale -> whole numbers from 0 to `white`, rounded and clamped, still floats."""
    return photo.mul(white).round_().clamp_(0, white)


def levels_half_up(photo: Tensor) -> Tensor:
    """`levels` with halves rounded up, as in MATLAB. Networks use it, so it is traced and exported too."""
    # the 1e-4 is for halves that float32 rounds to just below
    return photo.mul(255).add(0.5 + 1e-4).floor().clamp(0, 255)


def to_bytes(photo: Tensor) -> Tensor:
    """Photos on the [0,1] scale -> uint8 of the same shape, clamped and rounded."""
    return levels(photo.to(torch.promote_types(photo.dtype, torch.float32))).byte()


def luminance(rgb: Tensor) -> Tensor:
    """Y of BT.601, not rounded: (B,3,H,W) in [0,1] -> (B,1,H,W) in [16/255, 235/255]."""
    return rgb_to_ycbcr(rgb)[:, :1]


def rgb_to_ycbcr(rgb: Tensor) -> Tensor:
    """(B,3,H,W) in [0,1] -> Y, Cb and Cr of BT.601 (B,3,H,W) on the [0,1] scale, not rounded."""
    matrix = rgb.new_tensor(YCBCR) / 255
    offset = rgb.new_tensor(YCBCR_OFFSET).view(3, 1, 1) / 255
    return torch.einsum("ij,bjhw->bihw", matrix, rgb) + offset


def ycbcr_to_rgb(ycbcr: Tensor) -> Tensor:
    """The inverse of `rgb_to_ycbcr`, not clamped."""
    matrix = torch.tensor(YCBCR, dtype=torch.float64).inverse().to(ycbcr) * 255
    offset = ycbcr.new_tensor(YCBCR_OFFSET).view(3, 1, 1) / 255
    return torch.einsum("ij,bjhw->bihw", matrix, ycbcr - offset)


def luminance_plane(rgb: Tensor) -> Tensor:
    """Y of BT.601 rounded to 8 bits, as MATLAB's rgb2ycbcr of an 8-bit photo: (B,3,H,W) -> (B,1,H,W)."""
    return round_to_8_bits(luminance(rgb))


def resize(
    x: Tensor, height: int, width: int, *, kernel: Kernel = "bicubic", antialias: bool = True
) -> Tensor:
    """(B,C,H,W) -> (B,C,height,width), float32.

    `antialias` widens bicubic and bilinear kernels when reducing.
    """
    with full_precision(x.device):
        rows = matrix(x.shape[-2], height, kernel, antialias, x.device)
        columns = matrix(x.shape[-1], width, kernel, antialias, x.device)
        # the product that shrinks the data more comes first
        if height * x.shape[-1] <= width * x.shape[-2]:
            return (rows @ x) @ columns.T
        return rows @ (x @ columns.T)


def enlarge(degraded: Tensor, size: torch.Size | tuple[int, int]) -> Tensor:
    """Degraded photos at the size of the clean ones, (B,C,H,W).

    Smaller ones are enlarged by MATLAB's bicubic interpolation and clamped; others are unchanged.
    """
    if tuple(degraded.shape[-2:]) == tuple(size):
        return degraded
    return resize(degraded.float(), size[0], size[1]).clamp(0, 1)


@lru_cache(maxsize=128)
def matrix(n: int, m: int, kernel: Kernel, antialias: bool, device: torch.device) -> Tensor:
    """(m,n) float32: output i is the sum over j of entry (i, j) times input j."""
    if kernel not in KERNELS:
        raise ValueError(f"kernel must be one of {', '.join(KERNELS)}, got {kernel!r}")
    step = n / m
    if kernel == "nearest":
        centre = ((torch.arange(m, dtype=torch.float64) + 0.5) * step).floor_().long().clamp_(max=n - 1)
        return torch.nn.functional.one_hot(centre, n).float().to(device)
    if kernel == "area":
        return _overlap(n, m, step).float().to(device)
    widen = max(step, 1.0) if antialias else 1.0
    reach = int(_SUPPORT[kernel] * widen) + 1
    taps = torch.arange(-reach, n + reach)
    position = (torch.arange(m, dtype=torch.float64)[:, None] + 0.5) * step - 0.5
    weights = profile(kernel, (taps - position) / widen)
    folded = torch.zeros(m, n, dtype=torch.float64).index_add_(1, mirrored(taps, n), weights)
    return (folded / folded.sum(1, keepdim=True)).float().to(device)


def profile(kernel: Kernel, distance: Tensor, a: float = -0.5) -> Tensor:
    """The bilinear or bicubic kernel at a distance in pixels of the coarser grid.

    `a` is the cubic's slope at 1: -1/2 in MATLAB and Pillow, -3/4 in OpenCV and torch.
    """
    t = distance.abs()
    if kernel == "bilinear":
        return (1 - t).clamp_(min=0)
    near, far = cubic_pieces(t, a)
    return torch.where(t <= 1, near, far) * (t < 2)


def cubic_pieces(t: Distance, a: float = -0.5) -> tuple[Distance, Distance]:
    """Keys' cubic at distances t >= 0: the piece that holds up to 1, and that from 1 to 2; 0 beyond.

    Keys, "Cubic convolution interpolation for digital image processing", 1981, eq. 4, 7 and 8.
    """
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
    return near, far


def mirrored(index: Tensor, size: int) -> Tensor:
    """Indices outside [0, size) reflected about the edges, the edge pixel repeated."""
    folded = index.remainder(2 * size)
    return torch.minimum(folded, 2 * size - 1 - folded)


def _overlap(n: int, m: int, step: float) -> Tensor:
    """The share of output interval [i step, (i+1) step) that lies in input pixel j."""
    start = torch.arange(m, dtype=torch.float64)[:, None] * step
    pixel = torch.arange(n, dtype=torch.float64)
    return (torch.minimum(start + step, pixel + 1) - torch.maximum(start, pixel)).clamp_(min=0) / step


def turned(x: Tensor, turn: int) -> Tensor:
    """One of the eight turns and mirrorings of (B,C,H,W), `turn` from 0 to 7: mirrored from 4 on."""
    x = x.rot90(turn % 4, (-2, -1))
    return x.flip(-1) if turn >= 4 else x


def turned_back(x: Tensor, turn: int) -> Tensor:
    """The inverse of `turned`."""
    x = x.flip(-1) if turn >= 4 else x
    return x.rot90(-(turn % 4), (-2, -1))


def estimated_sigma(photo: NDArray[np.floating[Any]]) -> float:
    """Noise level (8-bit scale) of (H,W,C) in [0,1], from the median of the finest wavelets.

    Donoho and Johnstone, 1994. 0 where a photo of few pixels has no wavelets that are not 0.
    """
    from skimage.restoration import estimate_sigma

    with warnings.catch_warnings():  # of photos of few pixels: a side of 1 to 4 is taken for channels
        warnings.simplefilter("ignore")
        sigma = float(np.mean(estimate_sigma(photo, channel_axis=-1)))
    return 255 * sigma if math.isfinite(sigma) else 0.0


_DARK, _FEW = -0.5, 0.05
"""Of photos in [-1,1], more than this share is darker; of a black photo with noise of sigma 75, less."""
_HALF_A_STEP = 0.5
_BRIGHTEST = 8.0
"""The largest absolute value of a photo in [0,1] with unclipped noise; below it one in 0 to 255 is black."""


def check_photos(x: Any) -> None:
    """Raises ValueError, with the fix, for anything but finite float photos (B,C,H,W) on the [0,1] scale."""
    check_layout(x)
    if x.is_meta:
        raise ValueError("expected photos in [0,1], got a tensor of the meta device, which has no pixels")
    x = x.detach()
    if not all(end.isfinite() for end in x.aminmax()):
        raise ValueError("expected photos in [0,1], got values that are not finite (NaN or infinite)")
    check_scale(x)
    if float(x.amin()) < _DARK and float((x < _DARK).float().mean()) > _FEW:
        _say_once(
            f"many values of these photos are below {_DARK:g}, and photos are expected in [0,1]: if theirs "
            "are in [-1,1], pass (photo + 1) / 2"
        )


@cache
def _say_once(words: str) -> None:
    log.warning(words)


def check_layout(x: Any) -> None:
    """Raises ValueError, with the fix, for anything but float photos (B,C,H,W); reads no pixels."""
    if not isinstance(x, Tensor):
        raise ValueError(
            f"expected float photos (B,C,H,W) in [0,1] in a tensor, got {type(x).__name__}: for a file, "
            "pixels = restora.photos.reading.read_photo(path), and in any case "
            "torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255 of uint8 pixels (H,W,C)"
        )
    if fixes := _fixes(x):
        raise ValueError(
            f"expected float photos (B,C,H,W) in [0,1], got {x.dtype} of shape {tuple(x.shape)}: "
            f"use {', and '.join(fixes)}"
        )


def check_scale(x: Tensor) -> None:
    """Raises ValueError for photos far from the [0,1] scale."""
    darkest, brightest = map(float, x.aminmax())
    if max(brightest, -darkest) > _BRIGHTEST:
        far = f"up to {brightest:g}" if brightest > _BRIGHTEST else f"down to {darkest:g}"
        raise ValueError(
            f"expected photos in [0,1], got values {far}: divide 8-bit photos by 255, 16-bit ones by 65535, "
            "and subtract no mean"
        )


def channels_last(x: Tensor) -> bool:
    """Whether a tensor looks like photos (H,W,C) or (B,H,W,C) of 1, 3 or 4 channels."""
    counts = (1, 3, 4)
    return x.ndim in (3, 4) and x.shape[-1] in counts and x.shape[-3] not in counts


def _fixes(x: Tensor) -> list[str]:
    """What makes float photos (B,C,H,W) of a tensor; nothing for those."""
    fixes = []
    if x.numel() == 0:
        return ["a tensor that has pixels"]
    if x.layout is not torch.strided:
        fixes.append("photo.to_dense()")
    if x.ndim == 3 or not x.is_floating_point():
        fixes += _order(x)
    if not x.is_floating_point():
        eight = "photo.float()/255 for 8-bit photos"
        known = {torch.uint8: eight, torch.bool: "photo.float()"}
        fixes.append(known.get(x.dtype, f"photo.float()/65535 for 16-bit photos, {eight}"))
    if x.ndim != 4:
        fixes.append(
            {2: "photo[None, None] for a grey one", 3: "photo[None] for a single one"}.get(
                x.ndim, "photos (B,C,H,W)" if x.ndim < 4 else "photo.flatten(0, -4) for frames"
            )
        )
    return fixes


def _order(x: Tensor) -> list[str]:
    """A hint for photos whose channels are last."""
    if not channels_last(x):
        return []
    return [f"photo.permute({'2, 0, 1' if x.ndim == 3 else '0, 3, 1, 2'}) for channels that are last"]


def check_visible(name: str, level: float) -> None:
    """Raises ValueError for a level of the [0,1] scale given in place of one of the 8-bit scale.

    Those are below half a step of the 8-bit scale, which nobody sees.
    """
    if 0 < level < _HALF_A_STEP:
        raise ValueError(
            f"{name} is on the 8-bit scale, where {level:g} is invisible: "
            f"{level:g} of [0,1] is {level * 255:g}"
        )


def checked_level(sigma: float | None) -> float | None:
    """The noise level. Raises ValueError for anything but None and numbers from 0 to 255."""
    if isinstance(sigma, np.ndarray | Tensor) and sigma.ndim == 0:
        sigma = sigma.item()
    if sigma is None or (isinstance(sigma, Real) and not isinstance(sigma, bool) and 0 <= sigma <= 255):
        return sigma
    raise ValueError(
        f"sigma is the noise level on the 8-bit scale, a number from 0 to 255, got {sigma!r} "
        "(restora.artifact.photo_pixels.estimated_sigma estimates it from pixels)"
    )


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Computes float32 in full precision inside the block.

    No autocast, and no TF32 or bf16 products (1e-3 off, so the photo would differ from the CPU's).
    """
    with exact_products():
        if torch.amp.is_autocast_available(device.type):
            with torch.autocast(device.type, enabled=False):
                yield
        else:
            yield


@contextmanager
def exact_products() -> Iterator[None]:
    """Multiplies float32 without TF32 inside the block; cannot be traced by torch.compile."""
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision
