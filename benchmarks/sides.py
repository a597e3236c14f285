"""Sides of a comparison, each in a separate process with its own allocator and memory, called in turns."""

import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

from timing import Times, synchronise

from restora.allocator import keep_freed_memory

Prepared = tuple[Callable[[], object], Any]
"""The function to time, and a value that is sent back once (small, or a numpy array)."""
_PAUSE = 0.1


class Side:
    """A process that prepares a function and calls it on request.

    `make`, a module-level function, is called with `arguments` and those of `prepare`. `kept` keeps freed
    memory, as restora's commands do. Use it in a `with` statement, which ends the process.
    """

    def __init__(
        self, make: Callable[..., Prepared], *arguments: Any, kept: bool, device: str = "cpu"
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(
            target=_serve, args=(theirs, make, arguments, kept, device), daemon=True
        )
        self.process.start()

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.join()

    def prepare(self, *arguments: Any) -> Any:
        """Calls `make` for the function to time, and returns the value that it sends back."""
        return self._ask(("prepare", arguments))

    def call(self, times: Times) -> None:
        """Makes one call and adds its seconds to `times`."""
        wall, processor = self._ask(("call", ()))
        times.wall.append(wall)
        times.processor.append(processor)

    def memory(self) -> tuple[int, int]:
        """Peak memory in bytes, so far and before the first `prepare`."""
        peak, before = self._ask(("memory", ()))
        return peak, before

    def _ask(self, order: tuple[str, tuple[Any, ...]]) -> Any:
        self.connection.send(order)
        answer = self.connection.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer


def in_turns(sides: dict[str, Side], rounds: int) -> dict[str, Times]:
    """Calls each side `rounds` times, in turns, with a pause before each call.

    In the pause the last side's OpenMP threads stop spinning on the cores that the next side needs.
    """
    times = {name: Times() for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            time.sleep(_PAUSE)
            side.call(times[name])
    return times


def _serve(connection: Any, make: Callable[..., Prepared], arguments: Any, kept: bool, device: str) -> None:
    if kept:
        keep_freed_memory()
    before = peak_memory()
    call: Callable[[], object] = int
    while True:
        order, more = connection.recv()
        try:
            if order == "prepare":
                call, answer = make(*arguments, *more)
                connection.send(answer)
            elif order == "call":
                synchronise(device)
                wall, processor = time.perf_counter(), time.process_time()
                call()
                synchronise(device)
                connection.send((time.perf_counter() - wall, time.process_time() - processor))
            else:
                connection.send((peak_memory(), before))
        except Exception as error:
            connection.send(error)


def peak_memory() -> int:
    """The peak memory of this process, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
