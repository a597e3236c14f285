"""Smaller graphs of ONNX: in float16, and in int8 calibrated on real photos.

int8 is static (QDQ), symmetric per channel for weights and per tensor for activations. The convolutions that
read the photo and those that give the result stay in float32: the photo's own 8 bits are needed for
restoration, and an error of the last layer is an error of the result.
"""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from restora.artifact.parity import Sample

_SIDE = 128
_CROPS = 4
"""Of each photo, one from each corner."""
_QUANTISED = ("Conv", "ConvTranspose", "MatMul", "Gemm")


def write_half(graph: Path, target: Path) -> None:
    """The graph with float16 weights and arithmetic; inputs and outputs stay float32.

    Layer norms that also give their mean stay float32, because ONNX knows no mean in float16.
    """
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    whole = onnx.load(graph)
    read = {name for node in whole.graph.node for name in node.input}
    kept = [
        node.name
        for node in whole.graph.node
        if node.op_type == "LayerNormalization" and read & set(node.output[1:])
    ]
    with _quiet():
        half = convert_float_to_float16(whole, keep_io_types=True, node_block_list=kept)
        _drop_repeated_nodes(half.graph)
        onnx.save(half, target)


def _drop_repeated_nodes(graph: Any) -> None:
    """Keeps one of the equal casts that the converter adds for each reader of a value."""
    made, kept = set[str](), []
    for node in graph.node:
        if not made & {name for name in node.output if name}:
            made.update(node.output)
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)


def write_int8(graph: Path, target: Path, photos: Sequence[Sample]) -> None:
    """The graph in int8, its ranges calibrated on crops of `photos`."""
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    kept = _first_and_last(onnx.load(graph, load_external_data=False).graph)
    with _quiet():
        quantize_static(
            str(graph),
            str(target),
            _Crops(photos),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=list(_QUANTISED),
            nodes_to_exclude=kept,
        )


def _first_and_last(graph: Any) -> list[str]:
    """Names of the products with no quantised product before or after them."""
    producers = {name: node for node in graph.node for name in node.output}
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    first = _reached(
        [node for each in graph.input for node in readers.get(each.name, [])],
        lambda node: [after for name in node.output for after in readers.get(name, [])],
    )
    last = _reached(
        [producers[each.name] for each in graph.output],
        lambda node: [producers[name] for name in node.input if name in producers],
    )
    return sorted(first | last)


def _reached(start: list[Any], follow: Any) -> set[str]:
    """The first products on every path from `start`."""
    met, seen, todo = set(), set(), list(start)
    while todo:
        node = todo.pop()
        if node.name in seen:
            continue
        seen.add(node.name)
        if node.op_type in _QUANTISED:
            met.add(node.name)
        else:
            todo += follow(node)
    return met


class _Crops:
    """The inputs that onnxruntime's calibration requests one after the other."""

    def __init__(self, photos: Sequence[Sample]) -> None:
        self._given = iter([crop for sample in photos for crop in _corners(sample)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._given, None)


def _corners(sample: Sample) -> Iterator[dict[str, np.ndarray]]:
    height, width = sample.x.shape[2:]
    rows, columns = min(height, _SIDE), min(width, _SIDE)
    for corner in range(_CROPS):
        top, left = (height - rows) * (corner // 2), (width - columns) * (corner % 2)
        area = (slice(None), slice(None), slice(top, top + rows), slice(left, left + columns))
        given = {"degraded": sample.x[area].contiguous().numpy()}
        if sample.condition is not None:
            given["condition"] = sample.condition[area].contiguous().numpy()
        yield given


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences the converters, which report through the root logger and warnings."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(logging.NOTSET)
