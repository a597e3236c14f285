"""Which way to compute a network's training pass is the fastest here, found by trying it.

`compile=auto` on CUDA tries three: uncompiled, compiled by block, and the whole network as one graph that
CUDA replays, whose launches cost nothing. The first step of a run is made uncompiled and watched. Before the
second, the pass that it made (forward and backward of the network, on what it was given) is run in each way:
what fails is left out, the fastest of the others computes the run, and one line says which, and why. Weights,
gradients, statistics of batch norms and random numbers are afterwards what they were.

A CUDA graph writes its results where it wrote those before. So that nothing of this is seen, one pass of each
step is replayed, the first, on inputs of the kind that was tried; every other pass (photos of another size,
validation, a second pass in the same step) is uncompiled. What the network gives is copied out of the graph's
memory, and gradients are dropped before the next replay. It is not tried where gradients are accumulated over
batches or where a step makes several passes. Several processes exchange gradients while a backward pass goes
on, which one by block allows, and one that is a single call does not: there nothing is tried.

Where the patches change (progressive learning), the chosen way is tried anew, once for each size.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Timer
from torch import Tensor, nn

from restora.families.compiling import allow_graphs, first_cause, regions, why_not
from restora.families.ways import BY_BLOCK, UNCOMPILED, Tried, Way, fastest, ways_of

log = logging.getLogger(__name__)

COMPILING_AT_MOST = 300.0
"""Seconds that compiling a whole network may take by what its blocks took; otherwise it stays with these."""
_SHARE_OF_RUN = 0.1
"""The same, of a run's `max_time`."""
_RECORDED = 3
"""Passes before those that are timed: a CUDA graph warms up, records, and replays for the first time."""
_MOST_SIZES = 32
"""Kinds of inputs that are tried; what comes after them is uncompiled, where it is not compiled by block."""
_ROUNDS, _ROUND_SECONDS, _MOST_PASSES = 3, 0.2, 20


Signature = tuple[Any, ...]


def signature_of(arguments: Sequence[Any], device: torch.device) -> Signature:
    """What a compiled pass is made for; another one needs another."""
    kind = device.type
    cast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    return (
        cast,
        *(
            (tuple(a.shape), a.stride(), a.dtype, a.device, a.requires_grad) if isinstance(a, Tensor) else a
            for a in arguments
        ),
    )


class FastestPass:
    """Stands before a network's passes in training; `begin_step` has to be called before each step.

    `no_graphs` is why CUDA graphs cannot be used in this run, if they cannot. `at_once`: the first pass is
    made that way already, if it works, so that a run that goes on computes what one without a stop does.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        device: torch.device,
        ways: Sequence[Way],
        no_graphs: str = "",
        compiling_at_most: float = COMPILING_AT_MOST,
        at_once: bool = False,
    ) -> None:
        self.network, self.device, self.ways, self.no_graphs = network, device, tuple(ways), no_graphs
        self.at_once = at_once
        self.compiling_at_most = compiling_at_most
        self.way = UNCOMPILED
        self._order = self.ways
        """What is tried; after the first time the chosen way before what else there is."""
        self._compiled: Callable[..., Any] | None = None
        """The network as one, where `way` is that."""
        self._tried: list[Signature] = []
        """Inputs that ways were tried on, the present kind last."""
        self._made = 0
        """Passes of this step, of which `_first` is to be tried."""
        self._first: tuple[Signature, tuple[Any, ...]] | None = None
        network._compiled_call_impl = self  # where `Module.compile` puts what it makes

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        if named or not self.network.training or not torch.is_grad_enabled():
            return self.network._call_impl(*arguments, **named)
        if self.at_once:
            return self._tried_at_once(arguments)
        self._made += 1
        if self._compiled is not None and not self.way.graphs:
            return self._compiled(*arguments)
        if self._made > 1:
            return self.network._call_impl(*arguments)
        signature = signature_of(arguments, self.device)
        if self._compiled is not None and signature == self._tried[-1]:
            return _copied(self._compiled(*arguments))
        if signature not in self._tried and len(self._tried) < _MOST_SIZES:
            self._first = signature, arguments
        return self.network._call_impl(*arguments)

    def _tried_at_once(self, arguments: tuple[Any, ...]) -> Any:
        signature = signature_of(arguments, self.device)
        given_up = bool(self._tried) and self.way == UNCOMPILED
        if not given_up and signature not in self._tried:
            self._choose([_as_leaf(a) for a in arguments], several=False)
            self._tried.append(signature)
        call: Any = self.network._call_impl if self._compiled is None else self._compiled
        return call(*arguments)

    def begin_step(self) -> None:
        """Before the first pass of a step: nothing of the step before is needed any more."""
        if self.way.graphs:
            for parameter in self.network.parameters():
                parameter.grad = None
        if self._first is not None:
            (signature, arguments), self._first = self._first, None
            self._choose([_as_leaf(a) for a in arguments], several=self._made > 1)
            self._tried.append(signature)
        self._made = 0
        if self.way.graphs:
            _begin_replay()

    # --- choosing -------------------------------------------------------------------------------------------

    def _choose(self, arguments: list[Any], *, several: bool) -> None:
        """Tries what there is and takes the fastest; at another size the chosen way, or what else works."""
        again = bool(self._tried)
        if self.way.graphs:  # what was recorded for the size before has memory of its own
            self._take(UNCOMPILED)
            torch.compiler.reset()
        tried: list[Tried] = []
        for way in self._order:
            reason = self._obstacle(way, tried, several)
            tried.append(Tried(way, note=f"not tried: {reason}") if reason else self._try(way, arguments))
            if again and tried[-1].seconds is not None:
                break
        best = fastest(tried)
        if best != self.way:
            if self.way.graphs:
                torch.compiler.reset()
            self._take(best)
        self._order = (best, *(way for way in reversed(self.ways) if way != best))
        self._say(tried, best)

    def _say(self, tried: list[Tried], taken: Way) -> None:
        said = "; ".join(map(str, tried))
        wanted = [found for found in tried if found.way != UNCOMPILED]
        if wanted and all(found.seconds is None for found in wanted) and taken == UNCOMPILED:
            log.warning("torch.compile is not used (%s): training goes on uncompiled", said)
        else:
            log.info("a pass forward and backward: %s; taken: %s", said, taken.words)

    def _obstacle(self, way: Way, tried: list[Tried], several: bool) -> str:
        if way.graphs and self.no_graphs:
            return self.no_graphs
        if way.graphs and several:
            return "a step makes several passes"
        blocks = next((found for found in tried if found.way.by_block and found.seconds is not None), None)
        if way.whole and blocks is not None:
            expected = blocks.compiling * _blocks_of_each_kind(self.network)
            if expected > self.compiling_at_most:
                return f"compiling takes about {expected:.0f} s, more than {self.compiling_at_most:.0f}"
        return ""

    def _try(self, way: Way, arguments: list[Any]) -> Tried:
        """What a pass takes; the first one compiles."""
        started, skips = time.monotonic(), _left_out()
        try:
            if way != UNCOMPILED and (reason := why_not(self.device)):
                return Tried(way, note=f"failed: {reason}")
            self._take(way)
            if way.graphs and self.device.type == "cuda":  # for whose memory nothing else is given back
                torch.cuda.empty_cache()
            with _undisturbed(self.network, self.device):
                self._pass(arguments)
                self._wait()
                compiling = time.monotonic() - started
                if self.at_once:  # there is nothing to choose from
                    return Tried(way, self._seconds(arguments, 1), compiling)
                for _ in range(_RECORDED):
                    self._pass(arguments)
                skipped = way.graphs and _left_out() > skips
                note = "torch left parts out of the graph" if skipped else ""
                return Tried(way, self._timed(arguments), compiling, note)
        except Exception as error:  # compilers, drivers and a full memory raise all kinds
            self._take(UNCOMPILED)
            torch.compiler.reset()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            return Tried(way, note=f"failed: {first_cause(error)}")

    def _timed(self, arguments: list[Any]) -> float:
        """Seconds of a pass: the shortest of some rounds, waited for at their ends alone."""
        count = int(_ROUND_SECONDS / max(self._seconds(arguments, 1), 1e-6))
        count = min(max(count, 1), _MOST_PASSES)
        return min(self._seconds(arguments, count) for _ in range(_ROUNDS))

    def _seconds(self, arguments: list[Any], count: int) -> float:
        self._wait()
        started = time.perf_counter()
        for _ in range(count):
            self._pass(arguments)
        self._wait()
        return (time.perf_counter() - started) / count

    def _pass(self, arguments: list[Any]) -> None:
        """Forward and backward; gradients go nowhere."""
        if self.way.graphs:
            _begin_replay()
        call: Any = self.network._call_impl if self._compiled is None else self._compiled
        output = call(*arguments)
        torch.clear_autocast_cache()  # as at the end of a step: each pass casts its weights anew
        with torch.autocast(self.device.type, enabled=False):  # as a trainer does
            outputs = [output] if isinstance(output, Tensor) else list(output)
            loss = torch.stack([value.float().square().mean() for value in outputs]).sum()
            leaves: list[Tensor] = [p for p in self.network.parameters() if p.requires_grad]
            leaves += [a for a in arguments if isinstance(a, Tensor) and a.requires_grad]
            torch.autograd.grad(loss, leaves, allow_unused=True)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _take(self, way: Way) -> None:
        """Computes passes that way from now on."""
        allow_graphs()
        for block in regions(self.network):
            if block is not self.network:
                block._compiled_call_impl = None
        self.way, self._compiled = way, None
        if way.whole:
            self._compiled = torch.compile(self.network._call_impl, dynamic=False, mode=way.mode)
        elif way.by_block:
            for block in regions(self.network):
                if block is self.network:
                    self._compiled = torch.compile(self.network._call_impl, dynamic=False)
                else:
                    block.compile(dynamic=False)


def compile_for(network: nn.Module, trainer: Trainer, mode: bool | str) -> FastestPass | None:
    """What computes the network's passes as `mode` says; None where they stay as they are."""
    device = trainer.strategy.root_device
    ways = () if isinstance(mode, bool) else ways_of(mode, device)
    if ways == (UNCOMPILED,):
        log.info("compile=%s: on %s a pass stays uncompiled", mode, device.type)
        return None
    if not ways or (trainer.world_size > 1 and any(way.graphs for way in ways)):
        return FastestPass(network, device=device, ways=(BY_BLOCK,), at_once=True)
    accumulated = trainer.accumulate_grad_batches > 1
    return FastestPass(
        network,
        device=device,
        ways=ways,
        no_graphs="gradients are accumulated over batches" if accumulated else "",
        compiling_at_most=_compiling_at_most(trainer),
    )


def _compiling_at_most(trainer: Trainer) -> float:
    """Seconds that compiling the whole network may take in this run."""
    lengths = [
        left + timer.time_elapsed()
        for timer in trainer.callbacks  # type: ignore[attr-defined]
        if isinstance(timer, Timer) and (left := timer.time_remaining()) is not None
    ]
    return min([COMPILING_AT_MOST, *(_SHARE_OF_RUN * length for length in lengths)])


def _blocks_of_each_kind(network: nn.Module) -> float:
    """How many blocks there are for each one that is compiled, when those of a kind share it."""
    blocks = regions(network)
    kinds = {(type(block), tuple(p.shape for p in block.parameters())) for block in blocks}
    return len(blocks) / len(kinds)


@contextmanager
def _undisturbed(network: nn.Module, device: torch.device) -> Iterator[None]:
    """Puts back what a pass in training changes beside gradients: statistics and random numbers."""
    kept = [(value, value.clone()) for value in network.buffers()]
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        with torch.no_grad():
            for value, before in kept:
                value.copy_(before)


def _begin_replay() -> None:
    """Says that what was replayed before is not needed any more."""
    torch.compiler.cudagraph_mark_step_begin()


def _left_out() -> int:
    """How many parts torch has found that a CUDA graph cannot replay."""
    return int(torch._dynamo.utils.counters["inductor"]["cudagraph_skips"])


def _as_leaf(argument: Any) -> Any:
    if not isinstance(argument, Tensor):
        return argument
    return argument.detach().requires_grad_(argument.requires_grad)


def _copied(output: Any) -> Any:
    """Out of a CUDA graph's memory."""
    return output.clone() if isinstance(output, Tensor) else type(output)(value.clone() for value in output)
