"""The Triton program of `random_numbers.py`: SplitMix64 and Box-Muller, as in `keyed.py` with torch."""

import triton
import triton.language as tl


@triton.jit
def _mixed(word):
    """SplitMix64's output function on uint64, whose products wrap and whose shifts fill with zeros."""
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB
    return word ^ (word >> 31)


@triton.jit(do_not_specialize=["salt", "count"])
def drawn(keys, out, salt, count, KIND: tl.constexpr, BLOCK: tl.constexpr):
    """KIND 0: keys (B,); 1: words (B,count); 2: their halves (B,2 count); 3: normals (B,2 count)."""
    sample = tl.program_id(1).to(tl.int64)
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = place < count
    key = _mixed((tl.load(keys + sample) + salt).to(tl.uint64))
    if KIND == 0:
        tl.store(out + sample, key.to(tl.int64))
    else:
        # the states of a stream are the golden ratio times 2^64 apart
        word = _mixed(key + (place.to(tl.uint64) + 1) * 0x9E3779B97F4A7C15)
        if KIND == 1:
            tl.store(out + sample * count + place, word.to(tl.int64), mask=inside)
        else:
            if KIND == 2:
                first = (word >> 40).to(tl.float32)
                second = (word & 0xFFFFFF).to(tl.float32)
            else:
                # the radius from a number in (0, 1], whose fast logarithm may be above 0
                share = ((word >> 32).to(tl.float32) + 1.0) * 2.3283064365386963e-10
                radius = tl.sqrt(tl.maximum(-2.0 * tl.log(share), 0.0))
                angle = (word & 0xFFFFFFFF).to(tl.float32) * 1.4629180792671596e-09
                first = radius * tl.cos(angle)
                second = radius * tl.sin(angle)
            where = out + sample * 2 * count + place
            tl.store(where, first, mask=inside)
            tl.store(where + count, second, mask=inside)
