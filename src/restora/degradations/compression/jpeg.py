"""Baseline JPEG on the device, equal to libjpeg bit for bit.

Encoding and decoding use libjpeg's own integer arithmetic.

Entropy coding is lossless, so a JPEG photo is: colour conversion, chroma subsampling, "islow" integer DCT,
quantisation, and the inverses of all, with triangle-filtered ("fancy") chroma upsampling. Every step is an
integer linear combination followed by a rounding shift. Up to the second pass of the forward transform all
sums are below 2^24, where float32 is exact; later ones are split into two that are (`_shifted`). So the
result does not depend on the device, the batch or the order of summation, and no device needs float64 (MPS
has none; this has not been run there).

Sources: ITU-T T.81, Annex K (tables); Loeffler, Ligtenberg and Moschytz, ICASSP 1989 (the DCT whose
constants libjpeg rounds to 13 bits); the Independent JPEG Group's library, version 6b, for the order of
roundings and the edges.

Legend: B samples, C channels, H height, W width, N planes.
"""

from collections.abc import Callable
from typing import Literal, TypeAlias, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from restora.degradations.base import Degradation, Params, Severity, Shape
from restora.degradations.parameters import Range, as_whole_range, constant
from restora.image import levels
from restora.keyed import KeyedGenerator
from restora.registry import register

Subsampling = Literal["4:2:0", "4:4:4"]
Matrix: TypeAlias = tuple[tuple[float, ...], ...]

# ITU-T T.81, tables K.1 and K.2, row by row
_LUMA_TABLE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA_TABLE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
_FRACTION = 13  # fractional bits of the DCT's constants
_EXTRA = 2  # bits that the first pass of a transform keeps for the second


def _dct_matrix() -> Matrix:
    """The 8-point forward DCT of libjpeg's "islow" as integers, scaled by sqrt(8) 2^13; its transpose is the
    inverse.

    The flow graph's rotations share constants that were rounded one by one, so an entry is a sum of rounded
    constants.
    """
    c = {n: round(f * 2**_FRACTION) for n, f in _ROTATIONS.items()}
    one = 1 << _FRACTION
    even = {  # coefficients of (x0+x7, x1+x6, x2+x5, x3+x4)
        0: (one, one, one, one),
        2: (c["0.54"] + c["0.77"], c["0.54"], -c["0.54"], -c["0.54"] - c["0.77"]),
        4: (one, -one, -one, one),
        6: (c["0.54"], c["0.54"] - c["1.85"], c["1.85"] - c["0.54"], -c["0.54"]),
    }
    odd = {  # coefficients of (x0-x7, x1-x6, x2-x5, x3-x4)
        1: (
            c["1.50"] - c["0.90"] - c["0.39"] + c["1.18"],
            c["1.18"],
            c["1.18"] - c["0.39"],
            c["1.18"] - c["0.90"],
        ),
        3: (
            c["1.18"],
            c["3.07"] - c["2.56"] - c["1.96"] + c["1.18"],
            c["1.18"] - c["2.56"],
            c["1.18"] - c["1.96"],
        ),
        5: (
            c["1.18"] - c["0.39"],
            c["1.18"] - c["2.56"],
            c["2.05"] - c["2.56"] - c["0.39"] + c["1.18"],
            c["1.18"],
        ),
        7: (
            c["1.18"] - c["0.90"],
            c["1.18"] - c["1.96"],
            c["1.18"],
            c["0.30"] - c["0.90"] - c["1.96"] + c["1.18"],
        ),
    }
    # x7 is added to x0 in even coefficients and subtracted in odd ones, and so on inwards
    rows = {k: (*half, *half[::-1]) for k, half in even.items()}
    rows |= {k: (*half, *(-v for v in half[::-1])) for k, half in odd.items()}
    return tuple(rows[k] for k in range(8))


_ROTATIONS = {
    "0.30": 0.298631336,
    "0.39": 0.390180644,
    "0.54": 0.541196100,
    "0.77": 0.765366865,
    "0.90": 0.899976223,
    "1.18": 1.175875602,
    "1.50": 1.501321110,
    "1.85": 1.847759065,
    "1.96": 1.961570560,
    "2.05": 2.053119869,
    "2.56": 2.562915447,
    "3.07": 3.072711026,
}


@register("degradation", "jpeg")
class Jpeg(Degradation):
    """A photo saved as JPEG and opened again.

    `quality` is libjpeg's, 1 to 100: a number, or a range per sample. `cropped` is the number of rows and of
    columns, at most 15, that were cut off above and on the left after it was saved, each drawn by itself: the
    blocks then begin outside the photo.

    The photo is rounded to 8 bits first and comes back on the 8-bit grid. Colour (C=3) or grey (C=1).
    """

    def __init__(self, *, quality: Range, subsampling: Subsampling = "4:2:0", cropped: Range = 0) -> None:
        self.quality = as_whole_range("quality", quality, least=1, most=100)
        # all positions of a block of 8 pixels, and of its chroma at half the size
        self.cropped = as_whole_range("cropped", cropped, least=0, most=15)
        if subsampling not in get_args(Subsampling):
            raise ValueError(f"subsampling must be one of {get_args(Subsampling)}, got {subsampling!r}")
        self.subsampling = subsampling

    @property
    def severity(self) -> Severity:
        return Severity("quality", *self.quality)

    def sample(self, shape: Shape, generator: KeyedGenerator) -> Params:
        quality = generator.integers(self.quality[0], self.quality[1] + 1)
        if self.cropped == (0, 0):
            return {"quality": quality}
        return {"quality": quality, "cropped": generator.integers(self.cropped[0], self.cropped[1] + 1, (2,))}

    def apply(self, clean: Tensor, params: Params) -> Tensor:
        if "cropped" not in params:
            return jpeg(clean, params["quality"], subsampling=self.subsampling)
        cropped, more = params["cropped"], self.cropped[1]
        # what was cut off is not known: the first row and column again
        whole = _window(clean, -cropped, clean.shape[-2] + more, clean.shape[-1] + more)
        saved = jpeg(whole, params["quality"], subsampling=self.subsampling)
        return _window(saved, cropped, clean.shape[-2], clean.shape[-1])


def _window(x: Tensor, corner: Tensor, height: int, width: int) -> Tensor:
    """`height` x `width` pixels of each photo of (B,C,H,W) from its corner, int64 (B,2), edges repeated."""
    for axis, count in ((2, height), (3, width)):
        index = torch.arange(count, device=x.device) + corner[:, axis - 2, None]
        index = index.clamp_(0, x.shape[axis] - 1)
        index = index[:, None, :, None] if axis == 2 else index[:, None, None, :]
        shape = list(x.shape)
        shape[axis] = count
        x = x.gather(axis, index.expand(shape))
    return x


def jpeg(x: Tensor, quality: Tensor, *, subsampling: Subsampling = "4:2:0") -> Tensor:
    """(B,C,H,W) in [0,1], C 1 or 3, and int64 (B,) qualities -> the output of libjpeg's decoder.

    It is on the grid of 1/255. Raises ValueError for other numbers of channels.
    """
    if x.shape[1] not in (1, 3):
        raise ValueError(f"JPEG photos have 1 or 3 channels, got {x.shape[1]}")
    height, width = x.shape[-2:]
    pixels = levels(x)
    luma_table, chroma_table = _tables(quality)
    if x.shape[1] == 1:
        return _coded(pixels, luma_table)[..., :height, :width].div(255)
    # each plane is coded in blocks of its own and cut back to the photo, chroma at half the size
    luma, chroma = _to_ycc(pixels)
    luma = _coded(luma, luma_table)[..., :height, :width]
    if subsampling == "4:2:0":
        chroma = _coded(_halved(chroma), chroma_table)
        chroma = _doubled(chroma[..., : (height + 1) // 2, : (width + 1) // 2])[..., :height, :width]
    else:
        chroma = _coded(chroma, chroma_table)[..., :height, :width]
    return _to_rgb(luma, chroma).div_(255)


def _tables(quality: Tensor) -> tuple[Tensor, Tensor]:
    """libjpeg's scaling of the two example tables: (B,1,8,8) each, float32 integers in [1, 255]."""
    # steps grow like 1 / quality below 50 and fall linearly above, to 1 each at 100
    percent = torch.where(quality < 50, 5000 // quality, 200 - 2 * quality).view(-1, 1, 1, 1)
    luma, chroma = (constant(t, quality.device, torch.int64) for t in (_LUMA_TABLE, _CHROMA_TABLE))
    scaled = (((table * percent + 50) // 100).clamp_(1, 255).float() for table in (luma, chroma))
    return next(scaled), next(scaled)


def _to_ycc(rgb: Tensor) -> tuple[Tensor, Tensor]:
    """JFIF's colour conversion with 16 fractional bits: integer luma (B,1,H,W) and chroma (B,2,H,W)."""
    red, green, blue = rgb.unbind(1)
    half = 1 << 15
    # 0.299, 0.587 and 0.114 in 1/2^16; with the half, white gives 2^24 - 2^15: exact
    y = (red * 19595).add_(green, alpha=38470).add_(blue, alpha=7471).add_(half)
    # one less than a half, or pure blue and red would round to 256
    offset = (128 << 16) + half - 1
    cb = (blue * 32768).add_(red, alpha=-11059).add_(green, alpha=-21709).add_(offset)
    cr = (red * 32768).add_(green, alpha=-27439).add_(blue, alpha=-5329).add_(offset)
    # a product with a power of two and `floor_` are a shift that rounds down, for negative numbers too
    return y.mul_(2.0**-16).floor_()[:, None], torch.stack((cb, cr), 1).mul_(2.0**-16).floor_()


def _to_rgb(luma: Tensor, chroma: Tensor) -> Tensor:
    """(B,1,H,W) and (B,2,H,W) -> (B,3,H,W), integers in [0, 255]."""
    cb, cr = (chroma - 128).unbind(1)
    half = 1 << 15
    # 1.402, 0.34414, 0.71414 and 1.772 in 1/2^16; luma is whole and joins after the shift
    red = (cr * 91881).add_(half)
    green = (cb * -22554).add_(cr, alpha=-46802).add_(half)
    blue = (cb * 116130).add_(half)
    return torch.stack((red, green, blue), 1).mul_(2.0**-16).floor_().add_(luma).clamp_(0, 255)


def _halved(chroma: Tensor) -> Tensor:
    """Means of 2x2 pixels, rounded up and down in alternating columns so that no bias remains."""
    height, width = chroma.shape[-2:]
    # columns are padded to a whole block before the reduction, rows after it: it shows in the last block
    chroma = F.pad(chroma, (0, -width % 16, 0, height % 2), mode="replicate")
    total = chroma[..., ::2, ::2] + chroma[..., ::2, 1::2] + chroma[..., 1::2, ::2] + chroma[..., 1::2, 1::2]
    total[..., ::2].add_(1)
    total[..., 1::2].add_(2)
    return total.mul_(0.25).floor_()


def _doubled(chroma: Tensor) -> Tensor:
    """Triangle filter: each new sample is 3/4 of the nearer and 1/4 of the farther one, in both axes."""
    if chroma.shape[-1] <= 2:  # libjpeg repeats samples where there are so few
        return chroma.repeat_interleave(2, 2).repeat_interleave(2, 3)
    batch, planes, height, width = chroma.shape
    rows = F.pad(chroma, (0, 0, 1, 1), mode="replicate")
    near = chroma * 3
    # (B,P,H,2,W): each row leans to the one above it, then to the one below
    tall = torch.stack((near + rows[..., :-2, :], near + rows[..., 2:, :]), 3)
    tall = tall.view(batch, planes, 2 * height, width)
    # the same across; 8 and 7 round the sixteenths up and down in turn
    columns = F.pad(tall, (1, 1, 0, 0), mode="replicate")
    near = tall.mul_(3)
    left = (near + columns[..., :-2]).add_(8)
    right = (near + columns[..., 2:]).add_(7)
    return torch.stack((left, right), 4).mul_(1 / 16).floor_().view(batch, planes, 2 * height, 2 * width)


def _coded(planes: Tensor, table: Tensor) -> Tensor:
    """Transform, quantise, transform back: (B,P,H,W) integers -> the same, padded to whole 8x8 blocks.

    The shift of the first product is in its matrix; its rounding and the centring by 128 are in the bias.
    """
    height, width = planes.shape[-2:]
    # whole blocks by repeating the last column and row
    planes = F.pad(planes, (0, -width % 8, 0, -height % 8), mode="replicate")
    shape, device = planes.shape, planes.device

    x = planes.view(-1, 8)
    # rows of blocks, (B P H W / 8, 8) times (8,8): two bits after the point stay
    x = torch.addmm(constant(_CENTRED, device), x, constant(_FORWARD_ROWS, device)).floor_()
    # columns of blocks, (8,8) times (B P H / 8, 8, W): those two bits go too
    x = _down_columns(constant(_DCT, device), x.view(-1, 8, shape[-1]), bits=_FRACTION + _EXTRA)

    # coefficients carry a factor of 8; (B, block rows, 8, block columns, 8) meets the table (B,1,8,1,8)
    x = x.view(shape[0], -1, 8, shape[-1] // 8, 8)
    table = table.view(-1, 1, 8, 1, 8)
    # halves round away from zero: quotients grow by 2^-17, less than any other quotient's distance to a half
    x = x.div_(table * (8 * (1 - 2.0**-17))).round_().mul_(table)

    # back in the same order, with two bits more in between
    x = _down_columns(constant(_INVERSE, device), x.view(-1, 8, shape[-1]), bits=_FRACTION - _EXTRA)
    # 3 bits more for the factor of 8 that the coefficients carry
    x = _along_rows(x.view(-1, 8), constant(_DCT, device), bits=_FRACTION + _EXTRA + 3)
    return x.add_(128).clamp_(0, 255).view(shape)


def _down_columns(matrix: Tensor, blocks: Tensor, *, bits: int) -> Tensor:
    """(8,8) times (N,8,W) of integers, divided by 2^bits and rounded."""
    matrices = matrix.expand(blocks.shape[0], 8, 8)
    return _shifted(blocks, lambda t, y, s: torch.baddbmm(t, matrices, y, beta=s, alpha=s), bits)


def _along_rows(rows: Tensor, matrix: Tensor, *, bits: int) -> Tensor:
    """(N,8) of integers times (8,8), divided by 2^bits and rounded."""
    return _shifted(rows, lambda t, y, s: torch.addmm(t, y, matrix, beta=s, alpha=s), bits)


def _shifted(x: Tensor, scaled_sum: Callable[[Tensor, Tensor, float], Tensor], bits: int) -> Tensor:
    """floor(M x / 2^bits + 1/2) of integers x, exactly, though M x is too large for float32; overwrites x.

    With x = 256 h + l it is floor((M h + floor((M l + 2^(bits - 1)) / 256)) / 2^(bits - 8)), whose sums stay
    below 2^24: the absolute values in a row or column of M add up to 2^16 at most, l is below 2^8, and so is
    |h|, because |x| is at most 4,096 going forward, 1,152 at the start of the way back and 36,864 after its
    columns. `scaled_sum(t, y, s)` is s (t + M y); s is a power of two, which rounds nothing.
    """
    # x = 256 h + l with 0 <= l < 256, for negative x too
    high = x.mul(2.0**-8).floor_()
    half = constant(2.0 ** (bits - 1), x.device).expand((1,) * x.ndim)
    # the low part, with the half that rounds the whole, carries into the high one
    carried = scaled_sum(half, x.sub_(high, alpha=256), 2.0**-8).floor_()
    return scaled_sum(carried, high, 2.0 ** (8 - bits)).floor_()


def _scaled(matrix: Matrix, bits: int, *, transposed: bool) -> Matrix:
    """A matrix of integers divided by 2^bits, which is exact."""
    rows = zip(*matrix, strict=True) if transposed else matrix
    return tuple(tuple(entry * 2.0**-bits for entry in row) for row in rows)


_DCT = _dct_matrix()
_FORWARD_ROWS = _scaled(_DCT, _FRACTION - _EXTRA, transposed=True)
_INVERSE = _scaled(_DCT, 0, transposed=True)
_CENTRED = tuple(0.5 - 128 * sum(column) for column in zip(*_FORWARD_ROWS, strict=True))
