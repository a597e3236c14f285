"""Scores a method on a benchmark, photo by photo, in this process or in several.

Every photo is observed, restored and scored on its own, so that its figures do not depend on the process.
"""

import glob
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from restora.data.locking import end_with_parent
from restora.evaluation.benchmarks.base import Benchmark, Observation
from restora.evaluation.methods import Method, NetworkMethod
from restora.evaluation.results import CUT_SHORT, Result, Row
from restora.evaluation.scorer import DECIMALS, Scorer
from restora.files import is_running
from restora.image import to_bytes
from restora.metrics.registry import unavailable
from restora.photos.names import file_stem

OnPhoto = Callable[[Row], None]
"""Called after each photo, in the order in which they finish."""
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Work:
    """Everything that a process needs to score photos."""

    method: Method
    benchmark: Benchmark
    metrics: tuple[str, ...]
    images: Path | None = None
    """Where restored photos are saved, if anywhere."""


def evaluate(
    method: Method,
    benchmark: Benchmark,
    *,
    metrics: Sequence[str] = ("psnr", "ssim"),
    processes: int = 1,
    images: Path | None = None,
    on_photo: OnPhoto = lambda _: None,
) -> Result:
    """The figures of one method. Raises ValueError when benchmark and method do not fit."""
    reasons = {name: reason for name in metrics if (reason := unavailable(name)) is not None}
    usable = tuple(name for name in metrics if name not in reasons)
    count = len(benchmark.photos)
    benchmark.planes(method.intake)
    rows: dict[int, Row] = {}
    with _whole(images) as draft:
        work = Work(method, benchmark, usable, draft)
        for index, row in score_all(work, range(count), processes):
            rows[index] = row
            on_photo(row)
    ordered = [rows[index] for index in range(count)]
    for name in usable:
        if all(row.get(name) is None for row in ordered):
            reasons[name] = "the photos are too small for it"
    return Result(
        name=method.name,
        benchmark=benchmark.describe(),
        rows=ordered,
        not_computed=reasons,
        machine=machine(method.device),
    )


@contextmanager
def _whole(folder: Path | None) -> Iterator[Path | None]:
    """A draft folder, whose files move into `folder` at the end, or are deleted if anything fails."""
    if folder is None:
        yield None
        return
    draft = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    _clear_drafts(folder)
    try:
        yield draft
        if draft.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            for file in draft.iterdir():
                file.replace(folder / file.name)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _clear_drafts(folder: Path) -> None:
    """Deletes the drafts of `folder` that killed processes left; those of running processes stay."""
    for draft in folder.parent.glob(f".{glob.escape(folder.name)}.*.part"):
        process = draft.name.split(".")[-2]
        if process.isdecimal() and not (int(process) != os.getpid() and is_running(int(process))):
            shutil.rmtree(draft, ignore_errors=True)


def score_all(work: Work, indices: Sequence[int], processes: int) -> Iterator[tuple[int, Row]]:
    """(index, row) of every photo, as they are done."""
    processes = min(processes, len(indices))
    if processes <= 1:
        for index in indices:
            yield index, score(work, index)
        return
    threads = max(1, (os.cpu_count() or 1) // processes)
    with (
        _few_threads(threads),
        ProcessPoolExecutor(
            processes, mp_context=_context(), initializer=_start, initargs=(work, threads)
        ) as pool,
    ):
        futures = {pool.submit(_score_here, index): index for index in indices}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def score(work: Work, index: int) -> Row:
    """One photo: name, metrics, those of the input, seconds, size, and the facts of the benchmark.

    `cut_short` is what ended its computation early, if anything did. Errors name the photo.
    """
    try:
        return _scored(work, index)
    except ValueError as error:
        raise ValueError(f"{work.method.name}, photo {work.benchmark.names[index]}: {error}") from error


def _scored(work: Work, index: int) -> Row:
    observation = work.benchmark.observe(index, work.method.intake)
    remarks: list[str] = []
    started = time.perf_counter()
    output = work.method.restore(observation, say=remarks.append)
    seconds = time.perf_counter() - started
    _check_shape(output, observation)
    if not output.isfinite().all():
        raise ValueError("it gives pixels that are not finite")
    protocol = work.benchmark.protocol
    restored = work.benchmark.complete(output, observation)
    (figures,) = Scorer(protocol=protocol, metrics=work.metrics).rows(
        restored,
        work.benchmark.complete(observation.baseline, observation),
        observation.clean,
        eight_bit=observation.eight_bit,
    )
    scored = protocol.planes(restored, rounded=True)
    row: Row = {"name": observation.name} | figures
    row |= {
        "seconds": round(seconds, DECIMALS),
        "height": scored.shape[-2],
        "width": scored.shape[-1],
    } | observation.facts
    if remarks:
        row[CUT_SHORT] = "; ".join(remarks)
    if work.images is not None:
        _save(scored, work.images / f"{file_stem(observation.name)}.png")
    return row


def machine(device: torch.device) -> dict[str, Any]:
    """The device and the versions that the figures were made with."""
    from restora import __version__

    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "restora": __version__,
    }


def _context() -> BaseContext:
    """Processes forked from a server that has loaded everything once: ready in 0.1 s instead of seconds.

    The server itself never restores a photo, so forked processes inherit no threads and no accelerator.
    """
    if "forkserver" not in get_all_start_methods():
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload(["restora.evaluation.run"])
    return context


_work: Work | None = None


def _start(work: Work, threads: int) -> None:
    """Prepares a process: few threads, and its own accelerator where there are several."""
    global _work
    end_with_parent()
    torch.set_num_threads(threads)
    _work = work
    count = torch.cuda.device_count()
    if (
        count > 1
        and isinstance(work.method, NetworkMethod)
        and work.method.options.device in ("auto", "cuda")
    ):
        torch.cuda.set_device(os.getpid() % count)


def _score_here(index: int) -> Row:
    assert _work is not None
    return score(_work, index)


@contextmanager
def _few_threads(threads: int) -> Iterator[None]:
    """Limits the threads of child processes, whose libraries read these variables when loaded."""
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update({name: str(threads) for name in _THREAD_VARIABLES})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _check_shape(output: Tensor, observation: Observation) -> None:
    if output.shape[-2:] != observation.clean.shape[-2:]:
        got, expected = tuple(output.shape[-2:]), tuple(observation.clean.shape[-2:])
        raise ValueError(
            f"expected an output of {expected} pixels, got {got}: evaluate networks that enlarge with "
            "benchmark=super_resolution and their benchmark.scale"
        )


def _save(photo: Tensor, path: Path) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = to_bytes(photo[0]).permute(1, 2, 0).numpy()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(path)
