"""Tiles follow the memory that is free, and are halved where it was not enough."""

import subprocess
import sys

import pytest
import torch
from run_folders import tiny_network

from restora.artifact import memory
from restora.artifact.memory import bytes_per_pixel, fitting_tile, ran_out
from restora.artifact.restorer import Restorer
from restora.networks.dncnn import DnCNN

CPU = torch.device("cpu")


def test_a_plain_stack_holds_two_of_its_features() -> None:
    network = DnCNN(in_channels=3, depth=5, channels=64, batch_norm=False).eval()
    assert bytes_per_pixel(network) == pytest.approx(2 * 64 * 4, rel=0.1)


def test_the_tile_is_halved_until_it_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    network = tiny_network()
    tiles = []
    for free in (10**12, 40_000_000, 1_000, None):
        monkeypatch.setattr(memory, "free_bytes", lambda device, free=free: free)
        tiles.append(fitting_tile(network, device=CPU, largest=1088, least=128))
    assert tiles[0] == tiles[3] == 1088
    assert tiles[2] == 136
    assert 136 < tiles[1] < 1088


def test_some_of_the_free_memory_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    network = tiny_network()
    needed = memory.SCRATCH * bytes_per_pixel(network) * 1088**2
    tiles = []
    for free in (0.99 * needed / memory.SHARE, 1.01 * needed / memory.SHARE):
        monkeypatch.setattr(memory, "free_bytes", lambda device, free=free: int(free))
        tiles.append(fitting_tile(network, device=CPU, largest=1088, least=128))
    assert tiles == [544, 1088]


class Cramped(DnCNN):
    """Fails as torch does where a photo has more than 210 x 210 pixels."""

    fold_batch_norm = None  # which would make a plain one of it

    def restore(self, x: torch.Tensor, condition: torch.Tensor | None) -> torch.Tensor:
        if x.shape[2] * x.shape[3] > 210**2:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried …")
        return super().restore(x, condition)


def test_a_tile_that_runs_out_of_memory_is_halved() -> None:
    cramped = Cramped(in_channels=3, depth=3, channels=4)
    plain = DnCNN(in_channels=3, depth=3, channels=4)
    plain.load_state_dict(cramped.state_dict())
    x = torch.rand(1, 3, 290, 400)
    expected = Restorer(network=plain, device="cpu", tile=0)(x)
    for tile in (None, 0, 512):
        restorer = Restorer(network=cramped, device="cpu", tile=tile)
        assert torch.allclose(restorer(x), expected, atol=1e-5)
        assert 128 <= restorer.tile <= 210


def test_other_errors_are_not_taken_for_lack_of_memory() -> None:
    assert not ran_out(RuntimeError("shape mismatch"))
    assert not ran_out(ValueError("out of memory"))
    assert ran_out(MemoryError())


def test_the_estimate_does_not_import_torchs_compiler() -> None:
    """Which takes seconds, before the first photo."""
    code = (
        "import sys; from restora.artifact.memory import bytes_per_pixel; "
        "from restora.networks.dncnn import DnCNN; "
        "bytes_per_pixel(DnCNN(depth=3, channels=4)); print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
