"""The kernel draws what torch's operations draw, is used where it can be trusted, and saves the launches.

The program itself is run on a GPU, or where there is none by Triton's interpreter, if Triton is installed.
"""

import importlib.util
import logging
import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from restora import keyed
from restora.config import build, parts
from restora.kernels import random_numbers
from restora.keyed import KeyedGenerator, sample_key

KEYS = torch.tensor([sample_key(1, 2, number) for number in range(5)])
MOST_LAUNCHES = {"gaussian_noise": 9, "jpeg": 140, "everyday_photo": 540}
"""Operations of torch in degrading a batch on a device, and kernels of ours."""


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton comes with torch for CUDA")
@pytest.mark.parametrize("kind", random_numbers._KINDS)
def test_the_program_gives_the_same(kind: random_numbers.Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = KEYS.cuda() if torch.cuda.is_available() else KEYS
    if not keys.is_cuda:
        monkeypatch.setitem(os.environ, "TRITON_INTERPRET", "1")
    for salt, count in ((7, 1), (-(2**62) - 5, 1000)):
        got, wanted = random_numbers.draw(keys, salt, kind, count), keyed._by_torch(keys, salt, kind, count)
        assert got.dtype == wanted.dtype
        if kind == "normals":
            torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)
        else:
            assert torch.equal(got, wanted)


class Launches(TorchDispatchMode):
    """Counts what would be launched: views of tensors are not."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view and "empty" not in str(func):
            self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture
def as_on_cuda(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """The generator's way on a device, with or without its kernel, for which torch draws here."""

    def draw(keys: Tensor, salt: int, kind: random_numbers.Kind, count: int = 1) -> Tensor:
        with _disable_current_modes():
            drawn = keyed._by_torch(keys, salt, kind, count)
        return drawn.clone()  # which counts as the launch

    def chosen(kernel: bool) -> None:
        monkeypatch.setattr(keyed, "_FEW", -1)
        monkeypatch.setattr(random_numbers, "draw", draw)
        monkeypatch.setattr(KeyedGenerator, "_in_one_launch", kernel)

    return chosen


@pytest.mark.parametrize("name", MOST_LAUNCHES)
def test_a_batch_is_degraded_by_few_launches(name: str, as_on_cuda: Callable[[bool], None]) -> None:
    degradation, clean = build(dict(parts("degradation")[name]), "degradation"), torch.rand(5, 3, 16, 16)
    degraded, launches = [], []
    for kernel in (False, True):
        as_on_cuda(kernel)
        with Launches() as counted:
            degraded.append(degradation(clean, KeyedGenerator(KEYS)).image)
        launches.append(counted.count)
    assert torch.equal(*degraded)
    assert launches[1] <= MOST_LAUNCHES[name] < launches[0]


def test_a_kernel_that_differs_or_fails_is_said_once_and_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def wrong(*given: Any) -> Tensor:
        return keyed._by_torch(*given) + 1

    def failing(*given: Any) -> Tensor:
        raise RuntimeError("no ptxas for this card")

    caplog.set_level(logging.WARNING, logger=random_numbers.__name__)
    for draw, works, said in (
        (keyed._by_torch, True, ""),
        (wrong, False, "keys differ"),
        (failing, False, "no ptxas for this card"),
    ):
        caplog.clear()
        random_numbers._works.cache_clear()
        monkeypatch.setattr(random_numbers, "draw", draw)
        for _ in range(2):
            assert random_numbers._works(torch.device("cpu"), keyed._by_torch) is works
        assert [said in record.message for record in caplog.records] == ([] if works else [True])
    random_numbers._works.cache_clear()
    assert not random_numbers.usable(KEYS, keyed._by_torch), "there is none on a CPU"
