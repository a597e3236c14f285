"""The Triton programs.

Pointers are to contiguous memory, sums are float32, outputs have the dtype of their tensor.

Legend: M rows (positions of all samples), C input channels, N output channels, L positions of a sample; BM,
BN, BC, BL sizes of a block (powers of two, BC at least C).
"""

import triton
import triton.language as tl


@triton.jit
def _product(a, b, PRECISION: tl.constexpr):
    """a b in float32. Triton's interpreter multiplies the bits of bfloat16, so there both are widened."""
    if PRECISION == "interpreted":
        return tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision="ieee")
    return tl.dot(a, b, input_precision=PRECISION)


@triton.jit
def norm_linear(
    x, gain, shift, weight, bias, y, means, deviations,
    rows, outs, eps,
    C: tl.constexpr, BC: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    CENTRED: tl.constexpr, SHIFT: tl.constexpr, BIAS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """y = weight (norm(x) gain + shift) + bias: a row of x is read once.

    Keeps the mean and the inverse deviation of each row. Without CENTRED the mean stays in the row
    (Restormer's norm).
    """
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    column = tl.arange(0, BC)
    inside = (row[:, None] < rows) & (column[None, :] < C)
    place = row.to(tl.int64)[:, None] * C + column[None, :]
    values = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    mean = tl.sum(values, 1) / C
    centred = tl.where(inside, values - mean[:, None], 0.0)
    inverse = 1.0 / tl.sqrt(tl.sum(centred * centred, 1) / C + eps)
    tl.store(means + row, mean, mask=row < rows)
    tl.store(deviations + row, inverse, mask=row < rows)
    normed = (centred if CENTRED else values) * inverse[:, None]
    normed *= tl.load(gain + column, mask=column < C, other=0.0).to(tl.float32)[None, :]
    if SHIFT:
        normed += tl.load(shift + column, mask=column < C, other=0.0).to(tl.float32)[None, :]
    normed = normed.to(weight.dtype.element_ty)
    for start in range(0, outs, BN):
        out = start + tl.arange(0, BN)
        part = tl.load(
            weight + out[:, None] * C + column[None, :],
            mask=(out[:, None] < outs) & (column[None, :] < C),
            other=0.0,
        )
        total = _product(normed, tl.trans(part), PRECISION)
        if BIAS:
            total += tl.load(bias + out, mask=out < outs, other=0.0).to(tl.float32)[None, :]
        where = row.to(tl.int64)[:, None] * outs + out[None, :]
        tl.store(y + where, total.to(y.dtype.element_ty), mask=(row[:, None] < rows) & (out[None, :] < outs))


@triton.jit
def norm_linear_backward(
    grad, x, gain, weight, means, deviations, grad_x,
    rows, outs,
    C: tl.constexpr, BC: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    CENTRED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The gradient of x.

    With r the inverse deviation, h the normed row and g = gain (grad weight): r (g - mean(g) - h mean(g
    h)) where the norm centres, r g - (x - m) r^3 mean(g x) where it does not.
    """
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    column = tl.arange(0, BC)
    inside = (row[:, None] < rows) & (column[None, :] < C)
    total = tl.zeros((BM, BC), dtype=tl.float32)
    for start in range(0, outs, BN):
        out = start + tl.arange(0, BN)
        slope = tl.load(
            grad + row.to(tl.int64)[:, None] * outs + out[None, :],
            mask=(row[:, None] < rows) & (out[None, :] < outs),
            other=0.0,
        ).to(weight.dtype.element_ty)
        part = tl.load(
            weight + out[:, None] * C + column[None, :],
            mask=(out[:, None] < outs) & (column[None, :] < C),
            other=0.0,
        )
        total += _product(slope, part, PRECISION)
    total *= tl.load(gain + column, mask=column < C, other=0.0).to(tl.float32)[None, :]
    place = row.to(tl.int64)[:, None] * C + column[None, :]
    values = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    mean = tl.load(means + row, mask=row < rows, other=0.0)
    inverse = tl.load(deviations + row, mask=row < rows, other=0.0)[:, None]
    centred = values - mean[:, None]
    if CENTRED:
        normed = tl.where(inside, centred * inverse, 0.0)
        along = tl.sum(total * normed, 1) / C
        result = inverse * (total - (tl.sum(total, 1) / C)[:, None] - normed * along[:, None])
    else:
        along = tl.sum(total * values, 1) / C
        result = inverse * total - centred * inverse * inverse * inverse * along[:, None]
    tl.store(grad_x + place, result.to(grad_x.dtype.element_ty), mask=inside)


@triton.jit
def weight_products(
    grad, source, second, means, deviations, products, sums,
    rows, outs, per_sample, share,
    C: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BC: tl.constexpr,
    MODE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """For each share of the rows: grad^T h (N,C) and the sum of grad (N), where h is made anew from `source`.

    MODE 0: source normed and centred; 1: source / deviation; 2: source times `second` (B,C), a factor for
    each sample and channel; 3: the product of the halves of source (M,2C); 4: source as it is.
    """
    out = tl.program_id(0) * BN + tl.arange(0, BN)
    column = tl.program_id(1) * BC + tl.arange(0, BC)
    part = tl.program_id(2)
    total = tl.zeros((BN, BC), dtype=tl.float32)
    sum_of = tl.zeros((BN,), dtype=tl.float32)
    for start in range(part * share, tl.minimum((part + 1) * share, rows), BM):
        row = start + tl.arange(0, BM)
        valid = row < tl.minimum((part + 1) * share, rows)
        inside = valid[:, None] & (column[None, :] < C)
        slope = tl.load(
            grad + row.to(tl.int64)[:, None] * outs + out[None, :],
            mask=valid[:, None] & (out[None, :] < outs),
            other=0.0,
        )
        width = 2 * C if MODE == 3 else C
        place = row.to(tl.int64)[:, None] * width + column[None, :]
        values = tl.load(source + place, mask=inside, other=0.0).to(tl.float32)
        if MODE <= 1:
            inverse = tl.load(deviations + row, mask=valid, other=0.0)[:, None]
            if MODE == 0:
                values -= tl.load(means + row, mask=valid, other=0.0)[:, None]
            values = tl.where(inside, values * inverse, 0.0)
        if MODE == 2:
            factor = (row // per_sample)[:, None] * C + column[None, :]
            values *= tl.load(second + factor, mask=inside, other=0.0).to(tl.float32)
        if MODE == 3:
            values *= tl.load(source + place + C, mask=inside, other=0.0).to(tl.float32)
        total += _product(tl.trans(slope), values.to(slope.dtype), PRECISION)
        sum_of += tl.sum(slope.to(tl.float32), 0)
    where = part.to(tl.int64) * outs * C + out[:, None] * C + column[None, :]
    tl.store(products + where, total, mask=(out[:, None] < outs) & (column[None, :] < C))
    if tl.program_id(1) == 0:
        tl.store(sums + part * outs + out, sum_of, mask=out < outs)


@triton.jit
def _below(x):
    """The share of a standard normal distribution below x; times x it is the GELU."""
    return 0.5 * (1.0 + tl.erf(x * 0.7071067811865476))


@triton.jit
def depthwise_gate(
    x, weight, bias, y, sums,
    height, width, bands,
    C: tl.constexpr, BC: tl.constexpr, BL: tl.constexpr, ROWS: tl.constexpr, GELU: tl.constexpr,
):  # fmt: skip
    """A 3x3 depthwise convolution and the product of its halves, (B,H,W,2C) -> (B,H,W,C).

    With GELU, that of the first half is multiplied. Outside are zeros; `sums` (B, bands * columns, C) has the
    sum of y over each band of ROWS rows and BL columns. The weight is (9,2C).
    """
    band, columns, channel = _places(bands, BC, BL)
    sample = tl.program_id(0) // bands
    total = tl.zeros((BC,), dtype=tl.float32)
    for line in range(ROWS):
        row = band * ROWS + line
        first, second = _convolved(x, weight, bias, sample, row, columns, channel, height, width, C, BC, BL)
        inside = ((row + 0 * columns)[:, None] < height) & (columns[:, None] < width) & (channel[None, :] < C)
        if GELU:
            first *= _below(first)
        gated = tl.where(inside, first * second, 0.0)
        place = ((sample * height + row).to(tl.int64) * width + columns[:, None]) * C + channel[None, :]
        tl.store(y + place, gated.to(y.dtype.element_ty), mask=inside)
        total += tl.sum(gated, 0)
    piece = tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
    tl.store(sums + piece.to(tl.int64) * C + channel, total, mask=channel < C)


@triton.jit
def _places(bands, BC: tl.constexpr, BL: tl.constexpr):
    """The band of rows, the columns and the channels of a program."""
    return (
        tl.program_id(0) % bands,
        tl.program_id(1) * BL + tl.arange(0, BL),
        tl.program_id(2) * BC + tl.arange(0, BC),
    )


@triton.jit
def _shifted(
    x, sample, row, columns, channel, height, width,
    CHANNELS: tl.constexpr, LIMIT: tl.constexpr, OFFSET: tl.constexpr,
):  # fmt: skip
    """Values (BL,BC) at a row and columns of (B,H,W,CHANNELS), float32, zero outside the photo; channels
    below LIMIT, from OFFSET on."""
    rows = row + 0 * columns  # a block, as the interpreter makes numbers of a truth and a block of them
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    place = ((sample * height + row).to(tl.int64) * width + columns[:, None]) * CHANNELS
    return tl.load(
        x + place + OFFSET + channel[None, :], mask=inside[:, None] & (channel[None, :] < LIMIT), other=0.0
    ).to(tl.float32)


@triton.jit
def _convolved(
    x, weight, bias, sample, row, columns, channel, height, width,
    C: tl.constexpr, BC: tl.constexpr, BL: tl.constexpr,
):  # fmt: skip
    """Both halves of the convolution at one row, (BL,BC) each."""
    known = channel < C
    first = tl.zeros((BL, BC), dtype=tl.float32) + tl.load(bias + channel, mask=known, other=0.0).to(
        tl.float32
    )
    second = tl.zeros((BL, BC), dtype=tl.float32) + tl.load(bias + C + channel, mask=known, other=0.0).to(
        tl.float32
    )
    for tap in tl.static_range(9):
        r, c = row + tap // 3 - 1, columns + tap % 3 - 1
        tap_of = weight + tap * 2 * C + channel
        first += _shifted(x, sample, r, c, channel, height, width, 2 * C, C, 0) * tl.load(
            tap_of, mask=known, other=0.0
        ).to(tl.float32)
        second += _shifted(x, sample, r, c, channel, height, width, 2 * C, C, C) * tl.load(
            tap_of + C, mask=known, other=0.0
        ).to(tl.float32)
    return first, second


@triton.jit
def depthwise_gate_backward(
    x, weight, bias, grad, grad_sum, slopes, products,
    height, width, bands,
    C: tl.constexpr, BC: tl.constexpr, BL: tl.constexpr, ROWS: tl.constexpr, GELU: tl.constexpr,
):  # fmt: skip
    """The gradient of the convolution's 2C outputs, which are made anew, and of weight and bias by pieces.

    `products` (pieces,10,2C), the bias in the last place. `grad_sum` (B,C) is that of the sums.
    """
    band, columns, channel = _places(bands, BC, BL)
    sample = tl.program_id(0) // bands
    known = channel < C
    shared = tl.load(grad_sum + sample * C + channel, mask=known, other=0.0).to(tl.float32)
    places = tl.arange(0, 16)[:, None]
    total_first = tl.zeros((16, BC), dtype=tl.float32)
    total_second = tl.zeros((16, BC), dtype=tl.float32)
    for line in range(ROWS):
        row = band * ROWS + line
        first, second = _convolved(x, weight, bias, sample, row, columns, channel, height, width, C, BC, BL)
        inside = ((row + 0 * columns)[:, None] < height) & (columns[:, None] < width) & known[None, :]
        given = _shifted(grad, sample, row, columns, channel, height, width, C, C, 0) + shared[None, :]
        if GELU:
            share = _below(first)
            # the slope of x share(x), whose second part is x times the normal density
            second *= share + first * tl.exp(-0.5 * first * first) * 0.3989422804014327
            first *= share
        slope_first = tl.where(inside, given * second, 0.0)
        slope_second = tl.where(inside, given * first, 0.0)
        place = ((sample * height + row).to(tl.int64) * width + columns[:, None]) * 2 * C + channel[None, :]
        tl.store(slopes + place, slope_first.to(slopes.dtype.element_ty), mask=inside)
        tl.store(slopes + place + C, slope_second.to(slopes.dtype.element_ty), mask=inside)
        for tap in tl.static_range(9):
            r, c = row + tap // 3 - 1, columns + tap % 3 - 1
            one = tl.sum(slope_first * _shifted(x, sample, r, c, channel, height, width, 2 * C, C, 0), 0)
            other = tl.sum(slope_second * _shifted(x, sample, r, c, channel, height, width, 2 * C, C, C), 0)
            total_first += tl.where(places == tap, one[None, :], 0.0)
            total_second += tl.where(places == tap, other[None, :], 0.0)
        total_first += tl.where(places == 9, tl.sum(slope_first, 0)[None, :], 0.0)
        total_second += tl.where(places == 9, tl.sum(slope_second, 0)[None, :], 0.0)
    piece = (tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)).to(tl.int64)
    where = (piece * 10 + places) * 2 * C + channel[None, :]
    tl.store(products + where, total_first, mask=(places < 10) & known[None, :])
    tl.store(products + where + C, total_second, mask=(places < 10) & known[None, :])


@triton.jit
def depthwise_transposed(
    slopes, weight, grad_x,
    height, width, bands,
    C: tl.constexpr, BC: tl.constexpr, BL: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """The gradient of what a 3x3 depthwise convolution of C channels was given, (B,H,W,C) -> same."""
    band, columns, channel = _places(bands, BC, BL)
    sample = tl.program_id(0) // bands
    for line in range(ROWS):
        row = band * ROWS + line
        total = tl.zeros((BL, BC), dtype=tl.float32)
        for tap in tl.static_range(9):
            r, c = row - tap // 3 + 1, columns - tap % 3 + 1
            total += _shifted(slopes, sample, r, c, channel, height, width, C, C, 0) * tl.load(
                weight + tap * C + channel, mask=channel < C, other=0.0
            ).to(tl.float32)
        place = ((sample * height + row).to(tl.int64) * width + columns[:, None]) * C + channel[None, :]
        inside = ((row + 0 * columns)[:, None] < height) & (columns[:, None] < width) & (channel[None, :] < C)
        tl.store(grad_x + place, total.to(grad_x.dtype.element_ty), mask=inside)


@triton.jit
def gated_linear(
    x, source, factor, weight, bias, y,
    length, outs,
    C: tl.constexpr, BC: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    HALVES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """y = x + weight h + bias, h the source with its factor, or the product of the source's halves.

    The factor is its sample's. A program has positions of one sample.
    """
    sample = tl.program_id(1)
    position = tl.program_id(0) * BM + tl.arange(0, BM)
    row = sample.to(tl.int64) * length + position
    column = tl.arange(0, BC)
    inside = (position[:, None] < length) & (column[None, :] < C)
    width = 2 * C if HALVES else C
    place = row[:, None] * width + column[None, :]
    values = tl.load(source + place, mask=inside, other=0.0).to(tl.float32)
    if HALVES:
        values *= tl.load(source + place + C, mask=inside, other=0.0).to(tl.float32)
    else:
        values *= tl.load(factor + sample * C + column, mask=column < C, other=0.0).to(tl.float32)[None, :]
    values = values.to(weight.dtype.element_ty)
    for start in range(0, outs, BN):
        out = start + tl.arange(0, BN)
        part = tl.load(
            weight + out[:, None] * C + column[None, :],
            mask=(out[:, None] < outs) & (column[None, :] < C),
            other=0.0,
        )
        total = _product(values, tl.trans(part), PRECISION)
        total += tl.load(bias + out, mask=out < outs, other=0.0).to(tl.float32)[None, :]
        where = row[:, None] * outs + out[None, :]
        written = (position[:, None] < length) & (out[None, :] < outs)
        total += tl.load(x + where, mask=written, other=0.0).to(tl.float32)
        tl.store(y + where, total.to(y.dtype.element_ty), mask=written)


@triton.jit
def gated_linear_backward(
    grad, source, factor, weight, grad_source, grad_factor,
    length, outs,
    C: tl.constexpr, BC: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    HALVES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The gradient of the source, and of the factors by pieces: (B, pieces, C)."""
    sample = tl.program_id(1)
    position = tl.program_id(0) * BM + tl.arange(0, BM)
    row = sample.to(tl.int64) * length + position
    column = tl.arange(0, BC)
    inside = (position[:, None] < length) & (column[None, :] < C)
    total = tl.zeros((BM, BC), dtype=tl.float32)
    for start in range(0, outs, BN):
        out = start + tl.arange(0, BN)
        slope = tl.load(
            grad + row[:, None] * outs + out[None, :],
            mask=(position[:, None] < length) & (out[None, :] < outs),
            other=0.0,
        ).to(weight.dtype.element_ty)
        part = tl.load(
            weight + out[:, None] * C + column[None, :],
            mask=(out[:, None] < outs) & (column[None, :] < C),
            other=0.0,
        )
        total += _product(slope, part, PRECISION)
    width = 2 * C if HALVES else C
    place = row[:, None] * width + column[None, :]
    values = tl.load(source + place, mask=inside, other=0.0).to(tl.float32)
    kind = grad_source.dtype.element_ty
    if HALVES:
        others = tl.load(source + place + C, mask=inside, other=0.0).to(tl.float32)
        tl.store(grad_source + place, (total * others).to(kind), mask=inside)
        tl.store(grad_source + place + C, (total * values).to(kind), mask=inside)
    else:
        known = column < C
        times = tl.load(factor + sample * C + column, mask=known, other=0.0).to(tl.float32)
        tl.store(grad_source + place, (total * times[None, :]).to(kind), mask=inside)
        piece = sample * tl.num_programs(0) + tl.program_id(0)
        tl.store(grad_factor + piece * C + column, tl.sum(total * values, 0), mask=known)
