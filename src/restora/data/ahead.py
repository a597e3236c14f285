"""The next batch on its way to the device, and degraded there, while a step is computed.

Enters: batches on the host. Leaves: the same in the same order, each begun when the one before it is handed
out. On CUDA what is begun runs on a stream of its own: it starts when the steps that are queued by then are
done, so beside the step of the batch that is handed out, and what takes the batch waits for it on the device
and not on the host. Without a stream it is done at once, with the same results.
"""

from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from restora.types import Batch

Prepare = Callable[[Any], Batch]


class Ahead:
    """A batch that has been begun; `ready` gives it to the step.

    Note: no dataclass, as Lightning would look into it for numbers to convert.
    """

    def __init__(self, batch: Batch, made: "torch.cuda.Event | None" = None) -> None:
        self._batch, self._made = batch, made

    def ready(self) -> Batch:
        """The batch; what follows on the present stream comes after what made it, and not after the next."""
        if self._made is not None:
            present = torch.cuda.current_stream()
            present.wait_event(self._made)
            for field in fields(self._batch):
                value = getattr(self._batch, field.name)
                if isinstance(value, Tensor) and value.is_cuda:
                    value.record_stream(present)  # its memory is not given away before the step is done
        return self._batch


class OneAhead:
    """Begins each batch by `prepare` one before it is wanted, on a stream of the device if it has any."""

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
        # after what is queued: a degradation may read what a validation has made on the other stream
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._stream):
            return Ahead(self.prepare(batch), self._stream.record_event())
