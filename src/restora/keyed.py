"""Counter-based random numbers.

Every number is a function of (sample key, stream, position) and nothing else.

Enters: one 64-bit key per sample. Leaves: tensors of uniform, normal or integer numbers whose row b depends
on key b alone. A batch of eight therefore gets the same numbers as two batches of four, on any device,
whatever was drawn before; torch's own generators guarantee none of the three. The numbers are SplitMix64
(Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014), whose output is a hash
of `key + position * GOLDEN`, in 64-bit integer arithmetic that wraps in the same way on every device. Normals
are Box-Muller: equal across devices up to the last bits of log and cos.

Legend: B samples.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from restora.kernels import random_numbers

_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB
_MASK = 0xFFFFFFFFFFFFFFFF
_CHUNK = 1 << 17
"""Words drawn at once by a thread of a CPU: 1 MB, so that further passes over them hit its cache."""
_FEW = 1 << 12
"""Up to this many words (a batch's parameters) numpy is faster on a CPU: a call costs a fifth of torch's."""


_SALTS: dict[str | int, int] = {}
"""Salts by label: torch.compile can look them up, but cannot trace the hash that makes them."""


def _signed(value: int) -> int:
    """The 64-bit pattern `value` as the signed number that torch.int64 holds it as."""
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


def _mix(value: int) -> int:
    value = ((value ^ (value >> 30)) * _MIX_1) & _MASK
    value = ((value ^ (value >> 27)) * _MIX_2) & _MASK
    return value ^ (value >> 31)


def sample_key(*parts: int) -> int:
    """The key of one training sample from (seed, epoch, sample index), as a signed 64-bit integer."""
    state = 0
    for part in parts:
        state = _mix((state + _GOLDEN + (part & _MASK)) & _MASK)
    return _signed(state)


def image_key(name: str) -> int:
    """The key of a validation or benchmark image: it depends on the name alone, whatever the model."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return _signed(int.from_bytes(digest, "little"))


def _shift_right(bits: Tensor, by: int, out: Tensor | None = None) -> Tensor:
    """Logical shift right (torch shifts the sign bit in)."""
    return torch.bitwise_right_shift(bits, by, out=out).bitwise_and_((1 << (64 - by)) - 1)


def _few(state: Tensor) -> bool:
    return state.device.type == "cpu" and state.numel() <= _FEW and not torch.compiler.is_compiling()


def _splitmix(state: Tensor, scratch: Tensor | None = None) -> Tensor:
    """SplitMix64's output function, in place on a tensor of this module; `scratch` is a tensor like it."""
    if _few(state):
        words = state.numpy().view(np.uint64)
        words ^= words >> 30
        words *= _MIX_1
        words ^= words >> 27
        words *= _MIX_2
        words ^= words >> 31
        return state
    state.bitwise_xor_(_shift_right(state, 30, scratch)).mul_(_signed(_MIX_1))
    state.bitwise_xor_(_shift_right(state, 27, scratch)).mul_(_signed(_MIX_2))
    return state.bitwise_xor_(_shift_right(state, 31, scratch))


class KeyedGenerator:
    """Draws per-sample random numbers from per-sample keys.

    `keys` is int64 (B,), on the device where the numbers are wanted. Each call that draws advances to a new
    stream, so the same sequence of calls on the same keys gives the same numbers; `fork(label)` opens an
    independent sequence that does not depend on how many numbers were drawn before.
    """

    def __init__(self, keys: Tensor) -> None:
        if not isinstance(keys, Tensor):
            raise ValueError(f"keys must be int64 (B,), got {type(keys).__name__}: use torch.tensor([…])")
        if keys.dtype != torch.int64 or keys.ndim != 1:
            raise ValueError(
                f"keys must be int64 of shape (B,), got {keys.dtype} of shape {tuple(keys.shape)}"
            )
        self.keys = keys
        self._stream = 0

    @property
    def device(self) -> torch.device:
        return self.keys.device

    @property
    def batch(self) -> int:
        return self.keys.shape[0]

    def fork(self, label: str | int) -> "KeyedGenerator":
        """An independent generator for a named purpose; independent also of what this one has drawn."""
        if label not in _SALTS:
            _SALTS[label] = image_key(label) if isinstance(label, str) else sample_key(label)
        salt = _SALTS[label]
        return KeyedGenerator(self._drawn(salt, "keys"))

    def next_keys(self) -> Tensor:
        """Fresh int64 (B,) keys, for a later draw from stored parameters.

        That draw uses `KeyedGenerator(params["key"])`.
        """
        return self._drawn(self._next_salt(), "keys")

    def _next_salt(self) -> int:
        self._stream += 1
        return _signed(_GOLDEN * (self._stream << 1 | 1))

    @property
    def _in_one_launch(self) -> bool:
        # compiled code is one kernel anyway
        compiling = torch.compiler.is_compiling()
        return self.keys.is_cuda and not compiling and random_numbers.usable(self.keys, _by_torch)

    def _drawn(self, salt: int, kind: random_numbers.Kind, count: int = 1) -> Tensor:
        return (random_numbers.draw if self._in_one_launch else _by_torch)(self.keys, salt, kind, count)

    def bits(self, size: Sequence[int] = ()) -> Tensor:
        """Random int64 (B,*size), all 64 bits uniform."""
        if self._in_one_launch:
            return self._drawn(self._next_salt(), "words", math.prod(size)).view(self.batch, *size)
        if not size:
            return _splitmix(self.next_keys().add_(_signed(_GOLDEN)))
        return _splitmix(_states(self.next_keys(), 0, math.prod(size))).view(self.batch, *size)

    def uniform(self, size: Sequence[int] = (), low: float = 0.0, high: float = 1.0) -> Tensor:
        """Uniform float32 (B,*size) in [low, high), on a grid of 2^-24; two per 64-bit word."""
        count = math.prod(size)
        half = (count + 1) // 2
        scale = (high - low) * 2.0**-24
        if count <= 2 and _few(self.keys):
            few = self.bits().numpy().view(np.uint64)[:, None]
            drawn = np.concatenate((few >> 40, few & 0xFFFFFF), 1)[:, :count].astype(np.float32)
            drawn *= np.float32(scale)
            drawn += np.float32(low)
            return torch.from_numpy(drawn).view(self.batch, *size)
        if self._in_one_launch:
            out = self._drawn(self._next_salt(), "halves", half)
        else:
            out = torch.empty(self.batch, 2 * half, dtype=torch.float32, device=self.device)
            for start, stop, words, scratch in self._chunks(half):
                out[:, start:stop] = _shift_right(words, 40, scratch)
                out[:, half + start : half + stop] = words.bitwise_and_(0xFFFFFF)
        out.mul_(scale)
        return (out.add_(low) if low else out)[:, :count].reshape(self.batch, *size)

    def integers(self, low: int, high: int | Tensor, size: Sequence[int] = ()) -> Tensor:
        """Uniform int64 (B,*size) in [low, high); `high` is a number, or int64 (B,*size) above `low`."""
        if isinstance(high, int) and high <= low:
            raise ValueError(f"integers needs low < high, got [{low}, {high})")
        # 40 bits times the width, high part: the bias is below width / 2^40
        return (_shift_right(self.bits(size), 24).mul_(high - low) >> 40).add_(low)

    def normal(self, size: Sequence[int] = ()) -> Tensor:
        """Standard normal float32 (B,*size); two per 64-bit word (Box-Muller), the largest is 6.7."""
        count = math.prod(size)
        half = (count + 1) // 2
        if self._in_one_launch:
            out = self._drawn(self._next_salt(), "normals", half)
            return out[:, :count].reshape(self.batch, *size)
        out = torch.empty(self.batch, 2 * half, dtype=torch.float32, device=self.device)
        for start, stop, words, scratch in self._chunks(half):
            _box_muller(words, scratch, out[:, start:stop], out[:, half + start : half + stop])
        return out[:, :count].reshape(self.batch, *size)

    def normal_corner(self, size: Sequence[int], field: Sequence[int]) -> Tensor:
        """The upper left corner, (B,*size), of standard normal noise (B,C,*field), where C is size[0].

        The numbers do not depend on the size of the corner. A word makes two, one below the other.
        """
        channels, height, width = size
        pairs = (height + 1) // 2
        lines = torch.arange(channels, device=self.device)[:, None] * ((field[0] + 1) // 2)
        lines = (lines + torch.arange(pairs, device=self.device)).view(-1, 1)
        positions = (lines * field[1] + torch.arange(1, width + 1, device=self.device)).view(-1)
        out = torch.empty(self.batch, len(lines), 2, width, dtype=torch.float32, device=self.device)
        for start, stop, words, scratch in self._chunks(len(positions), positions, multiple=width):
            rows = out[:, start // width : stop // width]
            shape = (self.batch, -1, width)
            _box_muller(words.view(shape), scratch.view(shape), rows[:, :, 0], rows[:, :, 1])
        return out.view(self.batch, channels, 2 * pairs, width)[:, :, :height]

    def _chunks(
        self, count: int, positions: Tensor | None = None, *, multiple: int = 1
    ) -> Iterator[tuple[int, int, Tensor, Tensor]]:
        """`count` words of a new stream, or those at its `positions`, in chunks.

        A chunk is start, stop, the words from start to stop, int64 (B,stop-start), and a scratch tensor.
        """
        keys = self.next_keys()
        in_pieces = self.device.type == "cpu" and not torch.compiler.is_compiling()
        at_once = _CHUNK * torch.get_num_threads() if in_pieces else count * self.batch
        width = max(1, at_once // max(1, self.batch * multiple)) * multiple
        for start in range(0, count, width):
            stop = min(count, start + width)
            if positions is None:
                words = _states(keys, start, stop)
            else:
                words = keys[:, None] + positions[start:stop] * _signed(_GOLDEN)
            scratch = torch.empty_like(words)
            yield start, stop, _splitmix(words, scratch), scratch


def _by_torch(keys: Tensor, salt: int, kind: random_numbers.Kind, count: int) -> Tensor:
    """`random_numbers.draw` with torch's operations."""
    fresh = _splitmix(keys + salt)
    if kind == "keys":
        return fresh
    words = _splitmix(_states(fresh, 0, count))
    if kind == "words":
        return words
    if kind == "halves":
        return torch.cat((_shift_right(words, 40), words & 0xFFFFFF), 1).to(torch.float32)
    out = torch.empty(len(keys), 2 * count, dtype=torch.float32, device=keys.device)
    _box_muller(words, torch.empty_like(words), out[:, :count], out[:, count:])
    return out


def _box_muller(words: Tensor, scratch: Tensor, first: Tensor, second: Tensor) -> None:
    """Two normals of each word, into `first` and `second`; overwrites `words` and `scratch`."""
    # the radius from a number in (0, 1], the high word; the angle from the low word
    radius = _shift_right(words, 32, scratch).to(torch.float32).add_(1.0).mul_(2.0**-32)
    radius.log_().mul_(-2.0).sqrt_()
    angle = words.bitwise_and_(0xFFFFFFFF).to(torch.float32).mul_(2 * math.pi * 2.0**-32)
    if torch.compiler.is_compiling():  # compiled, `out` has to be contiguous
        first.copy_(radius * angle.cos())
        second.copy_(radius * angle.sin())
        return
    torch.mul(radius, angle.cos(), out=first)
    torch.mul(radius, angle.sin_(), out=second)


def _states(keys: Tensor, start: int, stop: int) -> Tensor:
    """SplitMix64's states at positions start + 1 to stop: int64 (B,stop-start)."""
    position = torch.arange(start + 1, stop + 1, dtype=torch.int64, device=keys.device)
    return keys[:, None] + position.mul_(_signed(_GOLDEN))
