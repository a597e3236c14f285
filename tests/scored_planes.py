"""What the scores of a benchmark are made of."""

from torch import Tensor

from restora.evaluation.benchmarks.base import Benchmark, Observation


def scored_planes(benchmark: Benchmark, answer: Tensor, observation: Observation) -> tuple[Tensor, Tensor]:
    """The planes of an answer and of the clean photo that `evaluate` compares."""
    assert observation.clean is not None
    completed = benchmark.complete(answer, observation)
    protocol = benchmark.protocol
    rounded = protocol.round_output and observation.eight_bit
    return protocol.planes(completed, rounded=rounded), protocol.planes(observation.clean, rounded=False)
