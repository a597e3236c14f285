"""Engines other than torch that run a network: ONNX Runtime and OpenVINO, on a CPU.

An engine takes float32 (B,C,H,W) and (B,K,H,W) or None and gives (B,C',H*s,W*s), neither clamped nor
rounded, like the network that it was exported from.

Note: OpenVINO computes in bfloat16 by default on CPUs that have it; here float32 is requested.

Legend: B photos, C channels, K condition channels, H height, W width, s scale.
"""

import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from restora.artifact.parity import Compute

ENGINES = ("auto", "torch", "onnxruntime", "openvino")


def check_engine(name: str) -> None:
    """Raises ValueError for an engine that does not exist or whose package is not installed."""
    if name not in ENGINES:
        raise ValueError(f"there is no engine {name!r}: use one of {', '.join(ENGINES)}")
    if name not in ("auto", "torch") and not available(name):
        raise ValueError(f"the engine {name} needs its package: {how_to_install(name)}, or engine torch")


def available(name: str) -> bool:
    """Whether the package of an engine is installed."""
    return name == "torch" or importlib.util.find_spec(name) is not None


def how_to_install(name: str) -> str:
    return f"pip install 'restora[{'onnx' if name == 'onnxruntime' else name}]'"


def open_engine(name: str, path: Path) -> Compute:
    """The graph in a file (.onnx; .xml of OpenVINO) by an engine. Raises ValueError if it cannot run it."""
    check_engine(name)
    kind = OnnxEngine if name == "onnxruntime" else OpenvinoEngine
    try:
        return kind(path)
    except Exception as error:  # either library has exceptions of its own, without a common base
        first = str(error).strip().partition("\n")[0]
        raise ValueError(f"{name} cannot open {path}: {first}") from error


class OnnxEngine:
    """A graph of ONNX by ONNX Runtime.

    `inputs` and `outputs` are its names with shapes, in which a dynamic side is a name or None.
    """

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = torch.get_num_threads()
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.inputs: dict[str, list[Any]] = {each.name: each.shape for each in self._session.get_inputs()}
        self._half = any("float16" in each.type for each in self._session.get_inputs())
        self.outputs: dict[str, list[Any]] = {each.name: each.shape for each in self._session.get_outputs()}

    def __call__(self, x: Tensor, condition: Tensor | None) -> Tensor:
        given = _by_name(list(self.inputs), x.half() if self._half else x, condition)
        with _errors_of("ONNX Runtime"):
            return torch.from_numpy(np.asarray(self._session.run(None, given)[0])).float()


class OpenvinoEngine:
    """A graph of ONNX or of OpenVINO's own format, compiled for each size of photo in turn.

    A graph for one size is up to twice as fast as one for all sizes, and tiles have few sizes.
    """

    def __init__(self, path: Path) -> None:
        import openvino

        self._core = openvino.Core()
        self._model = self._core.read_model(str(path))
        self.inputs, self.outputs = _shapes(self._model.inputs), _shapes(self._model.outputs)
        self._compiled: dict[tuple[int, ...], Any] = {}

    def __call__(self, x: Tensor, condition: Tensor | None) -> Tensor:
        given = _by_name(list(self.inputs), x, condition)
        shape = tuple(x.shape)
        with _errors_of("OpenVINO"):
            if shape not in self._compiled:
                while len(self._compiled) >= _KEPT:
                    del self._compiled[next(iter(self._compiled))]
                self._compiled[shape] = self._compile(given)
            return torch.from_numpy(self._compiled[shape](given)[0].copy())

    def _compile(self, given: Mapping[str, np.ndarray]) -> Any:
        self._model.reshape({name: value.shape for name, value in given.items()})
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        return self._core.compile_model(self._model, "CPU", settings)


def _shapes(ports: Any) -> dict[str, list[Any]]:
    return {
        port.get_any_name(): [side.get_length() if side.is_static else None for side in port.partial_shape]
        for port in ports
    }


@contextmanager
def _errors_of(library: str) -> Iterator[None]:
    """Turns a library's exceptions while it computes into Python's own."""
    try:
        yield
    except Exception as error:
        words = str(error)
        if "alloc" in words:
            raise MemoryError(f"{library} ran out of memory") from error
        raise RuntimeError(f"{library}: {words.strip().partition(chr(10))[0]}") from error


_KEPT = 4
"""The number of sizes whose compiled graphs are kept: a photo has tiles of one size, a series of photos few.
"""


def _by_name(names: list[str], x: Tensor, condition: Tensor | None) -> dict[str, np.ndarray]:
    values = [x] if condition is None or len(names) == 1 else [x, condition]
    return {name: value.contiguous().numpy() for name, value in zip(names, values, strict=True)}
