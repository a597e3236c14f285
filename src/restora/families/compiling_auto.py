"""Finds the fastest way to compute a network's training pass on this machine, by trying each.

`compile=auto` on CUDA tries three: uncompiled, compiled by block, and the whole network as one graph that
CUDA replays, which saves the cost of kernel launches. The first step of a run is uncompiled, and the inputs
of its pass are kept. Before the second step, this pass (forward and backward of the network) is run in each
way. Ways that fail are left out, the fastest of the others is used for the run, and one log line says
which, and why. The trial leaves weights, gradients, batch-norm statistics and random state unchanged.

A CUDA graph overwrites its previous results at each replay. To hide this, only the first pass of each step
is replayed, and only on inputs of the kind that was tried; every other pass (photos of another size,
validation, a second pass in the same step) is uncompiled. The network's output is copied out of the graph's
memory, and gradients are dropped before the next replay. A CUDA graph is not tried where gradients are
accumulated over batches or a step makes several passes. Several processes exchange gradients during the
backward pass, which compiling by block allows and a single graph does not: there, blocks are compiled without
a trial.

Where the patch size changes (progressive learning), the chosen way is tried again, once for each size.
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
"""Limit in seconds on compiling a whole network, estimated from its blocks; above it, blocks are used."""
_SHARE_OF_RUN = 0.1
"""The same limit, as a share of a run's `max_time`."""
_RECORDED = 3
"""Passes before the timed ones: a CUDA graph warms up, records, and replays for the first time."""
_MOST_SIZES = 32
"""Most kinds of inputs that are tried; further kinds run uncompiled, unless blocks are compiled."""
_ROUNDS, _ROUND_SECONDS, _MOST_PASSES = 3, 0.2, 20


Signature = tuple[Any, ...]


def signature_of(arguments: Sequence[Any], device: torch.device) -> Signature:
    """The kind of inputs that a compiled pass is specialised for (dtypes, shapes, strides, devices)."""
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
    """Wraps the forward call of a network in training; `begin_step` must be called before each step.

    `no_graphs` is the reason why CUDA graphs cannot be used in this run, or empty. `at_once`: the given way
    is used from the first pass on, if it works, so that a resumed run computes the same as an uninterrupted
    one.
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
        """The order of trials; after the first one, the chosen way comes first."""
        self._compiled: Callable[..., Any] | None = None
        """The compiled network, where `way` compiles it as a whole."""
        self._tried: list[Signature] = []
        """Kinds of inputs that were tried, the current one last."""
        self._made = 0
        """Passes made in this step; `_first` is the one to try."""
        self._first: tuple[Signature, tuple[Any, ...]] | None = None
        network._compiled_call_impl = self  # where `Module.compile` stores the compiled call

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
        """Called before the first pass of a step, when results of the previous step are no longer needed."""
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
        """Tries all ways and takes the fastest; at a further size, the chosen way or the next that works."""
        again = bool(self._tried)
        if self.way.graphs:  # the graph of the previous size holds memory of its own
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
            log.warning("torch.compile is not used (%s): training continues uncompiled", said)
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
        """Times a pass; the first one compiles."""
        started, skips = time.monotonic(), _left_out()
        try:
            if way != UNCOMPILED and (reason := why_not(self.device)):
                return Tried(way, note=f"failed: {reason}")
            self._take(way)
            if way.graphs and self.device.type == "cuda":  # cached memory is not freed for a graph's pool
                torch.cuda.empty_cache()
            with _undisturbed(self.network, self.device):
                self._pass(arguments)
                self._wait()
                compiling = time.monotonic() - started
                if self.at_once:  # no choice: one pass is enough
                    return Tried(way, self._seconds(arguments, 1), compiling)
                for _ in range(_RECORDED):
                    self._pass(arguments)
                skipped = way.graphs and _left_out() > skips
                note = "torch left parts out of the graph" if skipped else ""
                return Tried(way, self._timed(arguments), compiling, note)
        except Exception as error:  # compilers, drivers and out-of-memory raise all kinds
            self._take(UNCOMPILED)
            torch.compiler.reset()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            return Tried(way, note=f"failed: {first_cause(error)}")

    def _timed(self, arguments: list[Any]) -> float:
        """Seconds of a pass: the shortest of several rounds, each synchronised only at its end."""
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
        """Forward and backward; gradients are discarded."""
        if self.way.graphs:
            _begin_replay()
        call: Any = self.network._call_impl if self._compiled is None else self._compiled
        output = call(*arguments)
        torch.clear_autocast_cache()  # as at the end of a step: each pass casts its weights again
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
        """Uses this way for all further passes."""
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
    """Installs what `mode` asks for; None where the network's passes stay uncompiled."""
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
    """Blocks per compiled graph, as blocks of one kind share a graph."""
    blocks = regions(network)
    kinds = {(type(block), tuple(p.shape for p in block.parameters())) for block in blocks}
    return len(blocks) / len(kinds)


@contextmanager
def _undisturbed(network: nn.Module, device: torch.device) -> Iterator[None]:
    """Restores what a training pass changes apart from gradients: buffers and random state."""
    kept = [(value, value.clone()) for value in network.buffers()]
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        with torch.no_grad():
            for value, before in kept:
                value.copy_(before)


def _begin_replay() -> None:
    """Tells torch that the results of earlier replays are no longer needed."""
    torch.compiler.cudagraph_mark_step_begin()


def _left_out() -> int:
    """How many parts torch has left out of CUDA graphs so far."""
    return int(torch._dynamo.utils.counters["inductor"]["cudagraph_skips"])


def _as_leaf(argument: Any) -> Any:
    if not isinstance(argument, Tensor):
        return argument
    return argument.detach().requires_grad_(argument.requires_grad)


def _copied(output: Any) -> Any:
    """Copies an output out of a CUDA graph's memory."""
    return output.clone() if isinstance(output, Tensor) else type(output)(value.clone() for value in output)
