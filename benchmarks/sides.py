"""What is compared, each in a process of its own with its own allocator and memory, and called in turns."""

import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

from timing import Times, synchronise

from restora.allocator import keep_freed_memory

Prepared = tuple[Callable[[], object], Any]
"""What is timed, and what is sent back once (small, or a numpy array)."""
_PAUSE = 0.1


class Side:
    """A process that prepares a call and makes it when it is asked to.

    `make`, a function of a module, is called with `arguments` and those of `prepare`. `kept` keeps freed
    memory, as restora's commands do. Use in a `with` statement, which ends the process.
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
        """Builds what is timed, calls it once and hands over what `make` sends back."""
        return self._ask(("prepare", arguments))

    def call(self, times: Times) -> None:
        """One call, whose seconds are added to `times`."""
        wall, processor = self._ask(("call", ()))
        times.wall.append(wall)
        times.processor.append(processor)

    def memory(self) -> tuple[int, int]:
        """Bytes in use at the most so far, and before the first `prepare`."""
        peak, before = self._ask(("memory", ()))
        return peak, before

    def _ask(self, order: tuple[str, tuple[Any, ...]]) -> Any:
        self.connection.send(order)
        answer = self.connection.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer


def in_turns(sides: dict[str, Side], rounds: int) -> dict[str, Times]:
    """`rounds` calls of each, the next when the threads of the last have stopped waiting for work: OpenMP's
    spin some milliseconds on the cores that the next one needs.
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
    """The most memory that this process has had, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
