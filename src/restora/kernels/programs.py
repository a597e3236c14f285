"""The Triton programs.

Pointers point to contiguous memory, sums are float32, outputs have the dtype of their tensor.

Legend: M rows (positions of all samples), C input channels, N output channels, L positions of a sample; BM,
BN, BC, BL sizes of a block (powers of two, BC at least C).
"""

import triton
import triton.language as tl


@triton.jit
def _product(a, b, PRECISION: tl.constexpr):
    """a b in float32. Triton's interpreter multiplies bfloat16 wrongly, so there both are cast to float32."""
    if PRECISION == "interpreted":
        return tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision="ieee")
    return tl.dot(a, b, input_precision=PRECISION)


@triton.jit
def _vector(values, index, known):
    """Elements of a vector in float32, 0 where `known` is false."""
    return tl.load(values + index, mask=known, other=0.0).to(tl.float32)


@triton.jit
def _block(matrix, row, valid, column, known, width):
    """A block of a matrix with rows of `width` elements, in its own dtype; 0 outside."""
    place = row.to(tl.int64)[:, None] * width + column[None, :]
    return tl.load(matrix + place, mask=valid[:, None] & known[None, :], other=0.0)


@triton.jit
def _keep(matrix, row, valid, column, known, width, values):
    """Stores a block at the place where `_block` would load it."""
    place = row.to(tl.int64)[:, None] * width + column[None, :]
    tl.store(matrix + place, values.to(matrix.dtype.element_ty), mask=valid[:, None] & known[None, :])


@triton.jit
def _linear(values, weight, out, outs, column, known, C: tl.constexpr, PRECISION: tl.constexpr):
    """values weight^T for a block of outputs: (BM,BC) -> (BM,BN)."""
    part = _block(weight, out, out < outs, column, known, C)
    return _product(values, tl.trans(part), PRECISION)


@triton.jit
def _linear_backward(
    grad, weight, row, valid, outs, column, known,
    C: tl.constexpr, BC: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """grad weight, the gradient of the input of `_linear`: (BM,BC), from all N outputs."""
    total = tl.zeros((BM, BC), dtype=tl.float32)
    for start in range(0, outs, BN):
        out = start + tl.arange(0, BN)
        slope = _block(grad, row, valid, out, out < outs, outs).to(weight.dtype.element_ty)
        total += _product(slope, _block(weight, out, out < outs, column, known, C), PRECISION)
    return total


@triton.jit
def norm_linear(
    x, gain, shift, weight, bias, y, means, deviations,
    rows, outs, eps,
    C: tl.constexpr, BC: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    CENTRED: tl.constexpr, SHIFT: tl.constexpr, BIAS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """y = weight (norm(x) gain + shift) + bias: a row of x is read once.

    Stores the mean and the inverse standard deviation of each row. Without CENTRED the mean is not
    subtracted (Restormer's norm).
    """
    row, column = tl.program_id(0) * BM + tl.arange(0, BM), tl.arange(0, BC)
    valid, known = row < rows, column < C
    values = _block(x, row, valid, column, known, C).to(tl.float32)
    mean = tl.sum(values, 1) / C
    centred = tl.where(valid[:, None] & known[None, :], values - mean[:, None], 0.0)
    inverse = 1.0 / tl.sqrt(tl.sum(centred * centred, 1) / C + eps)
    tl.store(means + row, mean, mask=valid)
    tl.store(deviations + row, inverse, mask=valid)
    normed = (centred if CENTRED else values) * inverse[:, None]
    normed *= _vector(gain, column, known)[None, :]
    if SHIFT:
        normed += _vector(shift, column, known)[None, :]
    normed = normed.to(weight.dtype.element_ty)
    for start in range(0, outs, BN):
        out = start + tl.arange(0, BN)
        total = _linear(normed, weight, out, outs, column, known, C, PRECISION)
        if BIAS:
            total += _vector(bias, out, out < outs)[None, :]
        _keep(y, row, valid, out, out < outs, outs, total)


@triton.jit
def norm_linear_backward(
    grad, x, gain, weight, means, deviations, grad_x,
    rows, outs,
    C: tl.constexpr, BC: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    CENTRED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The gradient of x.

    With m the mean, r the inverse standard deviation, h the normalised row and g = gain (grad weight): r (g -
    mean(g) - h mean(g h)) with CENTRED, r g - (x - m) r^3 mean(g x) without.
    """
    row, column = tl.program_id(0) * BM + tl.arange(0, BM), tl.arange(0, BC)
    valid, known = row < rows, column < C
    total = _linear_backward(grad, weight, row, valid, outs, column, known, C, BC, BM, BN, PRECISION)
    total *= _vector(gain, column, known)[None, :]
    values = _block(x, row, valid, column, known, C).to(tl.float32)
    inverse = _vector(deviations, row, valid)[:, None]
    centred = values - _vector(means, row, valid)[:, None]
    if CENTRED:
        normed = tl.where(valid[:, None] & known[None, :], centred * inverse, 0.0)
        along = tl.sum(total * normed, 1) / C
        result = inverse * (total - (tl.sum(total, 1) / C)[:, None] - normed * along[:, None])
    else:
        along = tl.sum(total * values, 1) / C
        result = inverse * total - centred * inverse * inverse * inverse * along[:, None]
    _keep(grad_x, row, valid, column, known, C, result)


@triton.jit
def weight_products(
    grad, source, second, means, deviations, products, sums,
    rows, outs, per_sample, share,
    C: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BC: tl.constexpr,
    MODE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """For each share of the rows: grad^T h (N,C) and the sum of grad (N); h is recomputed from `source`.

    MODE 0: source normalised and centred; 1: source / standard deviation; 2: source times `second` (B,C), a
    factor per sample and channel; 3: the product of the halves of source (M,2C); 4: source unchanged.
    """
    out, column = tl.program_id(0) * BN + tl.arange(0, BN), tl.program_id(1) * BC + tl.arange(0, BC)
    known, part = column < C, tl.program_id(2)
    last = tl.minimum((part + 1) * share, rows)
    width = 2 * C if MODE == 3 else C
    total = tl.zeros((BN, BC), dtype=tl.float32)
    sum_of = tl.zeros((BN,), dtype=tl.float32)
    for start in range(part * share, last, BM):
        row = start + tl.arange(0, BM)
        valid = row < last
        slope = _block(grad, row, valid, out, out < outs, outs)
        values = _block(source, row, valid, column, known, width).to(tl.float32)
        if MODE <= 1:
            inverse = _vector(deviations, row, valid)[:, None]
            if MODE == 0:
                values -= _vector(means, row, valid)[:, None]
            values = tl.where(valid[:, None] & known[None, :], values * inverse, 0.0)
        if MODE == 2:
            values *= _block(second, row // per_sample, valid, column, known, C).to(tl.float32)
        if MODE == 3:
            values *= _block(source + C, row, valid, column, known, width).to(tl.float32)
        total += _product(tl.trans(slope), values.to(slope.dtype), PRECISION)
        sum_of += tl.sum(slope.to(tl.float32), 0)
    _keep(products + part.to(tl.int64) * outs * C, out, out < outs, column, known, C, total)
    if tl.program_id(1) == 0:
        tl.store(sums + part * outs + out, sum_of, mask=out < outs)


@triton.jit
def _below(x):
    """The standard normal CDF at x; x times it is the GELU."""
    return 0.5 * (1.0 + tl.erf(x * 0.7071067811865476))


@triton.jit
def depthwise_gate(
    x, weight, bias, y, sums,
    height, width, bands,
    C: tl.constexpr, BC: tl.constexpr, BL: tl.constexpr, ROWS: tl.constexpr, GELU: tl.constexpr,
):  # fmt: skip
    """A 3x3 depthwise convolution and the product of its halves, (B,H,W,2C) -> (B,H,W,C).

    With GELU, the first half is replaced by its GELU. Photos are zero-padded; `sums` (B, bands * columns, C)
    has the sum of y over each band of ROWS rows and BL columns. The weight is (9,2C).
    """
    sample, band, columns, channel = _places(bands, BC, BL)
    total = tl.zeros((BC,), dtype=tl.float32)
    for line in range(ROWS):
        row = band * ROWS + line
        first, second = _convolved(x, weight, bias, sample, row, columns, channel, height, width, C, BC, BL)
        place, inside = _at(sample, row, columns, channel, height, width, C, C)
        if GELU:
            first *= _below(first)
        gated = tl.where(inside, first * second, 0.0)
        tl.store(y + place, gated.to(y.dtype.element_ty), mask=inside)
        total += tl.sum(gated, 0)
    tl.store(sums + _piece() * C + channel, total, mask=channel < C)


@triton.jit
def _places(bands, BC: tl.constexpr, BL: tl.constexpr):
    """The sample, the band of rows, the columns and the channels of a program."""
    return (
        tl.program_id(0) // bands,
        tl.program_id(0) % bands,
        tl.program_id(1) * BL + tl.arange(0, BL),
        tl.program_id(2) * BC + tl.arange(0, BC),
    )


@triton.jit
def _piece():
    """The index of a program's band and columns over all samples."""
    return (tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)).to(tl.int64)


@triton.jit
def _at(
    sample, row, columns, channel, height, width,
    CHANNELS: tl.constexpr, LIMIT: tl.constexpr,
):  # fmt: skip
    """Offsets (BL,BC) of a row and columns in (B,H,W,CHANNELS), and a mask of those in the photo.

    The mask excludes channels from LIMIT on.
    """
    rows = row + 0 * columns  # a block, as the interpreter mishandles `&` of a scalar and a block
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    place = ((sample * height + row).to(tl.int64) * width + columns[:, None]) * CHANNELS + channel[None, :]
    return place, inside[:, None] & (channel[None, :] < LIMIT)


@triton.jit
def _shifted(
    x, sample, row, columns, channel, height, width,
    CHANNELS: tl.constexpr, LIMIT: tl.constexpr, OFFSET: tl.constexpr,
):  # fmt: skip
    """Values (BL,BC) at a row and columns, float32, zero outside the photo; channels from OFFSET on."""
    place, inside = _at(sample, row, columns, channel, height, width, CHANNELS, LIMIT)
    return tl.load(x + place + OFFSET, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _convolved(
    x, weight, bias, sample, row, columns, channel, height, width,
    C: tl.constexpr, BC: tl.constexpr, BL: tl.constexpr,
):  # fmt: skip
    """Both halves of the convolution at one row, (BL,BC) each."""
    known = channel < C
    first = tl.zeros((BL, BC), dtype=tl.float32) + _vector(bias, channel, known)
    second = tl.zeros((BL, BC), dtype=tl.float32) + _vector(bias + C, channel, known)
    for tap in tl.static_range(9):
        r, c = row + tap // 3 - 1, columns + tap % 3 - 1
        taps = weight + tap * 2 * C
        one = _shifted(x, sample, r, c, channel, height, width, 2 * C, C, 0)
        other = _shifted(x, sample, r, c, channel, height, width, 2 * C, C, C)
        first += one * _vector(taps, channel, known)
        second += other * _vector(taps + C, channel, known)
    return first, second


@triton.jit
def depthwise_gate_backward(
    x, weight, bias, grad, grad_sum, slopes, products,
    height, width, bands,
    C: tl.constexpr, BC: tl.constexpr, BL: tl.constexpr, ROWS: tl.constexpr, GELU: tl.constexpr,
):  # fmt: skip
    """The gradient of the convolution's 2C outputs, which are recomputed, and of weight and bias by pieces.

    `products` is (pieces,10,2C), the bias last. `grad_sum` (B,C) is the gradient of the sums.
    """
    sample, band, columns, channel = _places(bands, BC, BL)
    known = channel < C
    shared = _vector(grad_sum + sample * C, channel, known)
    places = tl.arange(0, 16)[:, None]
    total_first = tl.zeros((16, BC), dtype=tl.float32)
    total_second = tl.zeros((16, BC), dtype=tl.float32)
    for line in range(ROWS):
        row = band * ROWS + line
        first, second = _convolved(x, weight, bias, sample, row, columns, channel, height, width, C, BC, BL)
        place, inside = _at(sample, row, columns, channel, height, width, 2 * C, C)
        given = _shifted(grad, sample, row, columns, channel, height, width, C, C, 0) + shared[None, :]
        if GELU:
            share = _below(first)
            # the derivative of x share(x): share(x) plus x times the normal density
            second *= share + first * tl.exp(-0.5 * first * first) * 0.3989422804014327
            first *= share
        slope_first = tl.where(inside, given * second, 0.0)
        slope_second = tl.where(inside, given * first, 0.0)
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
    where = (_piece() * 10 + places) * 2 * C + channel[None, :]
    tl.store(products + where, total_first, mask=(places < 10) & known[None, :])
    tl.store(products + where + C, total_second, mask=(places < 10) & known[None, :])


@triton.jit
def depthwise_transposed(
    slopes, weight, grad_x,
    height, width, bands,
    C: tl.constexpr, BC: tl.constexpr, BL: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """The gradient of the input of a 3x3 depthwise convolution with C channels, (B,H,W,C) -> same."""
    sample, band, columns, channel = _places(bands, BC, BL)
    for line in range(ROWS):
        row = band * ROWS + line
        total = tl.zeros((BL, BC), dtype=tl.float32)
        for tap in tl.static_range(9):
            r, c = row - tap // 3 + 1, columns - tap % 3 + 1
            slope = _shifted(slopes, sample, r, c, channel, height, width, C, C, 0)
            total += slope * _vector(weight + tap * C, channel, channel < C)
        place, inside = _at(sample, row, columns, channel, height, width, C, C)
        tl.store(grad_x + place, total.to(grad_x.dtype.element_ty), mask=inside)


@triton.jit
def gated_linear(
    x, source, factor, weight, bias, y,
    length, outs,
    C: tl.constexpr, BC: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    HALVES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """y = x + weight h + bias, h the source times its factor, or the product of the source's halves.

    Each sample has its own factors. A program handles positions of one sample.
    """
    sample, position = tl.program_id(1), tl.program_id(0) * BM + tl.arange(0, BM)
    row, column = sample.to(tl.int64) * length + position, tl.arange(0, BC)
    valid, known = position < length, column < C
    width = 2 * C if HALVES else C
    values = _block(source, row, valid, column, known, width).to(tl.float32)
    if HALVES:
        values *= _block(source + C, row, valid, column, known, width).to(tl.float32)
    else:
        values *= _vector(factor + sample * C, column, known)[None, :]
    values = values.to(weight.dtype.element_ty)
    for start in range(0, outs, BN):
        out = start + tl.arange(0, BN)
        total = _linear(values, weight, out, outs, column, known, C, PRECISION)
        total += _vector(bias, out, out < outs)[None, :]
        total += _block(x, row, valid, out, out < outs, outs).to(tl.float32)
        _keep(y, row, valid, out, out < outs, outs, total)


@triton.jit
def gated_linear_backward(
    grad, source, factor, weight, grad_source, grad_factor,
    length, outs,
    C: tl.constexpr, BC: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    HALVES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The gradient of the source, and that of the factors in pieces: (B, pieces, C)."""
    sample, position = tl.program_id(1), tl.program_id(0) * BM + tl.arange(0, BM)
    row, column = sample.to(tl.int64) * length + position, tl.arange(0, BC)
    valid, known = position < length, column < C
    total = _linear_backward(grad, weight, row, valid, outs, column, known, C, BC, BM, BN, PRECISION)
    width = 2 * C if HALVES else C
    values = _block(source, row, valid, column, known, width).to(tl.float32)
    if HALVES:
        others = _block(source + C, row, valid, column, known, width).to(tl.float32)
        _keep(grad_source, row, valid, column, known, width, total * others)
        _keep(grad_source + C, row, valid, column, known, width, total * values)
    else:
        times = _vector(factor + sample * C, column, known)[None, :]
        _keep(grad_source, row, valid, column, known, width, total * times)
        piece = sample * tl.num_programs(0) + tl.program_id(0)
        tl.store(grad_factor + piece * C + column, tl.sum(total * values, 0), mask=known)
