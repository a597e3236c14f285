"""What all tests share: one seed, few threads, the development data, and the peers of our networks."""

import gc
import logging
import os
import random
import runpy
import sys

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("WANDB_SILENT", "true")
# what few tests compile takes less time than to start processes for it
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")

from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

_held: list[object] = []
"""What is declared to torch lasts as long as who declared it."""


def pytest_configure(config: pytest.Config) -> None:
    """What is heavy is imported by the processes that run tests, not by the one that hands them out."""
    worker = bool(os.environ.get("PYTEST_XDIST_WORKER"))
    if not worker and config.getoption("numprocesses", None):
        return
    peers_folder = Path(sys.prefix) / "peers"
    if peers_folder.is_dir():  # `make test` installs tests/peers.txt beside the environment
        sys.path.append(str(peers_folder))
    import torch

    peers = runpy.run_path(str(REPOSITORY / "benchmarks" / "peers.py"))
    peers["declare_operators"]()
    _held.append(peers)
    if worker:
        torch.set_num_threads(1)  # the workers share the cores


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each worker starts with whole modules of long tests: none is left for the end, where the others would
    have nothing to do, and none is divided among workers that each make what its tests share."""
    if (workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))) == 1:
        return
    modules: dict[Path, list[pytest.Item]] = {}
    for item in items:
        if item.path.parent.name != "unit" and item.path.parents[1].name == "tests":
            modules.setdefault(item.path, []).append(item)
    short = [item for item in items if item.path not in modules]
    left, ordered = len(items), []
    for worker in range(workers):
        first = [item for module in [*modules.values()][worker::workers] for item in module]
        share = left // (workers - worker)  # what xdist gives to this one
        ordered += [*first, *short[: max(0, share - len(first))]]
        del short[: max(0, share - len(first))]
        left -= share
    items[:] = [*ordered, *short]


def pytest_collection_finish() -> None:
    gc.freeze()  # what the imports made stays: no collection looks through it again


@pytest.fixture(autouse=True)
def seed() -> None:
    """Every test draws the same numbers, alone or after others."""
    import numpy as np
    import torch

    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 -- libraries under test draw from it
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    """A command that a test runs leaves a handler behind, whose stream is closed with the test."""
    before = logging.root.handlers[:]
    yield
    logging.root.handlers[:] = [handler for handler in logging.root.handlers if handler in before]


@pytest.fixture(scope="session", autouse=True)
def timed_on_small_photos() -> None:
    """What an export costs is measured, in a tenth of the time."""
    from warm_server import time_on_small_photos

    time_on_small_photos()


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def development_data() -> Path:
    """Photos, test sets and authors' weights for development; the test is skipped where they are absent."""
    root = Path(os.environ.get("RESTORA_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (root / "testsets").is_dir():
        pytest.skip(f"development data not found at {root} (set RESTORA_TEST_DATA)")
    return root


@pytest.fixture(scope="session")
def shared_data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for packed stores, so that the sample photos are packed once for all tests."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "data"
    folder.mkdir(exist_ok=True)
    return folder
