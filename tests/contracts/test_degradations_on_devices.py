"""Every degradation runs on a device without the host waiting for it, in as many calls for six photos as for
two, and gives there what it gives on a CPU.

The first two are tested without a device: torch's `meta` tensors have shapes and no values, take the path
that a device takes, and refuse to be read. What reaches torch is watched call by call.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from restora.config import build, parts
from restora.data.degrading import made
from restora.data.replayed import Replayed
from restora.degradations.base import Degradation
from restora.degradations.compose.composition import Maybe, OneOf
from restora.degradations.compression import error_diffusion
from restora.degradations.identity import Identity
from restora.degradations.noise.gaussian_noise import GaussianNoise
from restora.keyed import KeyedGenerator, sample_key

NODES = parts("degradation")
SIZE = 24
META = torch.device("meta")
REPEATED = {
    "bicubic_x3": "bicubic_x2",
    "div2k_mild_x4": "div2k_wild_x4",
    "dither_atkinson": "dither_floyd_steinberg",
    "dither_jarvis": "dither_floyd_steinberg",
    "old_photo": "a chain; its stages are watched alone",
    "old_photo_scan": "a chain; its stages are watched alone",
    "real_esrgan_x2": "real_esrgan_x4",
    "small_photo_x2": "small_photo_x4",
}
"""Options that make the calls of another one: watching them takes seconds."""
READ_BY_THE_HOST = (
    "_local_scalar_dense",
    "is_nonzero",
    "nonzero",
    "nonzero_numpy",
    "masked_select",
    "unique_dim",
    "_unique",
    "_unique2",
    "unique_consecutive",
    "equal",
    "bincount",
    "histc",
)


class Watch(TorchDispatchMode):
    """Counts what reaches torch, and refuses what makes the host wait for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.dtypes: set[torch.dtype] = set()
        """Of the tensors on the device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in READ_BY_THE_HOST, f"{name} waits for the device"
        if name in ("index", "index_put", "index_put_"):
            dtypes = {i.dtype for i in args[1] if i is not None}
            assert not dtypes & {torch.bool, torch.uint8}, "an index of booleans waits for the device"
        if name == "repeat_interleave":
            assert not isinstance(args[-1], Tensor), "repeats on a device are waited for"
        out = func(*args, **(kwargs or {}))
        entering = any(t.device != META for t in tensors_in((*args, *(kwargs or {}).values())))
        leaving = [t for t in tensors_in((out,)) if t.device == META]
        assert not (entering and leaving), f"{name} copies from the host, which waits for the device"
        self.calls[name] += 1
        self.dtypes |= {t.dtype for t in leaving}
        return out


def tensors_in(values: Iterable[Any]) -> Iterator[Tensor]:
    """Of an operator's arguments or results; torch's own search of any nest takes three times as long."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors_in(value)


class NothingFromTheHost(TorchFunctionMode):
    """Refuses numbers of Python made into tensors, which `Watch` does not get to see on `meta`."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func not in (torch.tensor, torch.as_tensor, torch.from_numpy, Tensor.new_tensor), (
            f"{func.__name__} copies from the host, which waits for the device: use constant() or new_full()"
        )
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def watched() -> Iterator[Watch]:
    with NothingFromTheHost(), Watch() as watch:
        yield watch


def watched_calls(degradation: Degradation, *batches: int) -> list[Watch]:
    """What a call does for each number of photos; one before fills caches."""
    degradation(_clean(batches[0]), _generator(batches[0]))
    watches = []
    for batch in batches:
        clean, generator = _clean(batch), _generator(batch)
        with watched() as watch:
            image, _ = degradation(clean, generator)
        assert image.shape == (batch, 3, SIZE // degradation.scale, SIZE // degradation.scale)
        watches.append(watch)
    return watches


def _clean(batch: int) -> Tensor:
    return torch.empty(batch, 3, SIZE, SIZE, device=META)


def _generator(batch: int) -> KeyedGenerator:
    return KeyedGenerator(torch.empty(batch, dtype=torch.int64, device=META))


@pytest.mark.parametrize("name", [name for name in NODES if name not in REPEATED])
def test_the_host_never_waits_no_photo_is_treated_alone_and_no_device_needs_float64(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Apple's MPS has no float64; error diffusion takes it where there is one."""
    monkeypatch.setattr(error_diffusion, "widest", lambda device: torch.float32)
    degradation: Degradation = build(NODES[name], "degradation")
    two, six = watched_calls(degradation, 2, 6)
    assert two.calls == six.calls
    assert torch.float64 not in two.dtypes | six.dtypes


def test_a_mixture_with_a_condition_does_not_wait() -> None:
    stages = {"noise": GaussianNoise(sigma=(0, 50)), "same": Identity()}
    for mixture in (OneOf(stages=stages), Maybe(stage=GaussianNoise(sigma=9), probability=0.5)):
        assert mixture.condition_channels == 1
        two, six = watched_calls(mixture, 2, 6)
        assert two.calls == six.calls


@pytest.mark.parametrize(
    "mistake",
    [
        lambda x: x.mean().item(),
        lambda x: x.tolist(),
        lambda x: x.cpu(),
        lambda x: bool((x > 0).any()),
        lambda x: (x > 0).nonzero(),
        lambda x: x[x > 0],
        lambda x: torch.where(x > 0),
        lambda x: x.masked_select(x > 0),
        lambda x: x.unique(),
        lambda x: x * torch.tensor([1.0, 2.0]).to(x.device)[:, None],
        lambda x: x.new_tensor([1.0, 2.0]),
        lambda x: x.repeat_interleave(torch.zeros(2, dtype=torch.int64, device=x.device), 0),
    ],
)
def test_the_watch_sees_a_host_that_waits(mistake: Callable[[Tensor], Any]) -> None:
    x = torch.empty(2, 3, device=META)
    with pytest.raises((AssertionError, RuntimeError, NotImplementedError)), watched():
        mistake(x)


def test_the_watch_counts_photos_that_are_treated_alone() -> None:
    def by_photo(batch: int) -> int:
        x = torch.empty(batch, 3, device=META)
        with watched() as watch:
            torch.stack([(photo * 2.0).clamp(0, 1) for photo in x])
        return sum(watch.calls.values())

    assert by_photo(2) < by_photo(6)


def devices(*among: str) -> list[Any]:
    present = {
        "cuda": (torch.cuda.is_available(), "no CUDA device"),
        "mps": (torch.backends.mps.is_available(), "no MPS device"),
    }
    return [
        pytest.param(name, marks=pytest.mark.skipif(not there, reason=why))
        for name, (there, why) in present.items()
        if name in among
    ]


@contextlib.contextmanager
def refusing_to_wait(device: str) -> Iterator[None]:
    if device != "cuda":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("device", devices("cuda", "mps"))
@pytest.mark.parametrize("name", NODES)
def test_a_device_gives_what_the_cpu_gives(name: str, device: str) -> None:
    """Up to the last bits of transcendental functions, which a rounding may turn into a step of a few
    pixels.
    """
    degradation: Degradation = build(NODES[name], "degradation")
    keys = torch.tensor([sample_key(7, i) for i in range(4)])
    clean = torch.rand(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    expected, condition = degradation(clean, KeyedGenerator(keys))
    there, keys_there = clean.to(device), keys.to(device)
    degradation(there, KeyedGenerator(keys_there))  # fills caches
    with refusing_to_wait(device):
        image, condition_there = degradation(there, KeyedGenerator(keys_there))
    error = (image.cpu() - expected).abs()
    assert error.mean() < 2e-4
    assert (error > 1e-3).float().mean() < 0.01
    assert (condition is None) == (condition_there is None)
    if condition is not None and condition_there is not None:
        assert (condition_there.cpu() - condition).abs().mean() < 1e-4


@pytest.mark.parametrize("device", devices("cuda"))
@pytest.mark.parametrize("name", NODES)
def test_a_device_replays_what_it_computes(name: str, device: str, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is computed in another way because a recording failed."""
    degradation: Degradation = build(NODES[name], "degradation")
    replays = Replayed(partial(made, degradation, False))
    for number in range(4):
        photos = torch.randint(0, 256, (3, 3, SIZE, SIZE), dtype=torch.uint8).to(device)
        keys = torch.tensor([sample_key(number, i) for i in range(3)]).to(device)
        for got, wanted in zip(replays(photos, keys), made(degradation, False, photos, keys), strict=True):
            assert (got is None) == (wanted is None)
            if got is not None and wanted is not None:
                assert (got - wanted).abs().mean() < 1e-4
    assert not caplog.messages
