"""Prefetching: the next batch is copied to the device, and degraded there, while a step is computed.

Enters: batches on the host. Leaves: the same batches in the same order; work on each begins when the previous
one is handed out. On CUDA this work runs on a stream of its own: it starts when the steps queued so far are
done, and so overlaps with the step of the batch that is handed out. The step waits for its batch on the
device, not on the host. Without a stream the work is done at once, with the same results.
"""

from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from restora.types import Batch

Prepare = Callable[[Any], Batch]


class Ahead:
    """A batch in preparation; `ready` gives it to the step.

    Note: not a dataclass, because Lightning would search one for tensors to convert.
    """

    def __init__(self, batch: Batch, made: "torch.cuda.Event | None" = None) -> None:
        self._batch, self._made = batch, made

    def ready(self) -> Batch:
        """The batch; later work on the current stream waits until it is made, and not for the next one."""
        if self._made is not None:
            present = torch.cuda.current_stream()
            present.wait_event(self._made)
            for field in fields(self._batch):
                value = getattr(self._batch, field.name)
                if isinstance(value, Tensor) and value.is_cuda:
                    value.record_stream(present)  # its memory is not reused before the step is done
        return self._batch


class OneAhead:
    """Calls `prepare` for each batch one step ahead, on a stream of its own if the device has streams."""

    def __init__(self, prepare: Prepare, device: torch.device) -> None:
        self.prepare, self.device = prepare, device
        self._stream: torch.cuda.Stream | None = None

    def __call__(self, batches: Iterator[Any]) -> Iterator[Ahead]:
        begun: Ahead | None = None
        for batch in batches:
            following = self._begin(batch)
            if begun is not None:
                yield begun
            begun = following
        if begun is not None:
            yield begun

    def _begin(self, batch: Any) -> Ahead:
        if self.device.type != "cuda":
            return Ahead(self.prepare(batch))
        if self._stream is None:
            self._stream = torch.cuda.Stream(self.device)
        # after the queued work: a degradation may read results of validation from the current stream
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._stream):
            return Ahead(self.prepare(batch), self._stream.record_event())
