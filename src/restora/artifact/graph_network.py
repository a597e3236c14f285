"""A graph of ONNX or OpenVINO as a network: of a model folder with its description, or a foreign one alone.

The channels and the scale of a foreign graph, and the number that its sides must be multiples of, are found
by running it on small photos. It is assumed to work on the [0,1] scale.

Legend: B photos, C channels, K condition channels, H height, W width, s scale.
"""

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from restora.artifact import measuring
from restora.artifact.engines import OnnxEngine, OpenvinoEngine, open_engine
from restora.artifact.parity import Compute
from restora.networks.base import Network

ENGINE_OF = {".onnx": "onnxruntime", ".xml": "openvino"}
_PROBE = 64
_MULTIPLES = (1, 2, 4, 8, 16, 32, 64)


class GraphNetwork(Network):
    """Runs `compute` where a network is expected. For inference only: it has no parameters to train.

    `bytes_per_pixel` is its peak memory per pixel of its input, if that was measured.
    """

    tasks: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        *,
        compute: Compute,
        in_channels: int,
        out_channels: int,
        condition_channels: int = 0,
        scale: int = 1,
        size_multiple: int = 1,
        bytes_per_pixel: float | None = None,
        frames: int = 1,
    ) -> None:
        super().__init__()
        self.compute = compute
        self.in_channels, self.out_channels = in_channels, out_channels
        self.condition_channels, self.scale = condition_channels, scale
        self.size_multiple, self.bytes_per_pixel = size_multiple, bytes_per_pixel
        self.frames = frames

    def restore(self, x: Tensor, condition: Tensor | None) -> Tensor:
        return self.compute(x.float(), condition)

    def __deepcopy__(self, memo: dict[int, Any]) -> "GraphNetwork":
        return self  # what an engine has compiled cannot be copied, and nothing changes it


def graph_like(network: Network, path: Path, *, bytes_per_pixel: float | None) -> GraphNetwork:
    """The graph of `network` that was exported to `path`; it takes any size."""
    return GraphNetwork(
        compute=open_engine(ENGINE_OF[path.suffix], path),
        in_channels=network.in_channels,
        out_channels=network.out_channels,
        condition_channels=network.condition_channels,
        scale=network.scale,
        bytes_per_pixel=bytes_per_pixel,
        frames=network.frames,
    )


def strangers_graph(path: Path) -> GraphNetwork:
    """A foreign graph. Raises ValueError for one that does not take photos of any size, with the reason."""
    engine = open_engine(ENGINE_OF[path.suffix], path)
    assert isinstance(engine, OnnxEngine | OpenvinoEngine)
    shapes = list(engine.inputs.values())
    if any(len(shape) != 4 for shape in shapes) or len(shapes) not in (1, 2) or len(engine.outputs) != 1:
        raise _refused(path, engine, "a photo (B,C,H,W), optionally a condition, and one output")
    channels = [shape[1] for shape in shapes]
    if channels[0] not in (1, 3) or not all(isinstance(number, int) for number in channels):
        raise _refused(path, engine, "photos of 1 or 3 channels, channels first")
    if any(isinstance(side, int) for shape in shapes for side in shape[2:]):
        raise _refused(path, engine, "photos of any size (export it with dynamic height and width)")
    maps = channels[1] if len(channels) == 2 else 0
    found = [
        (multiple, out)
        for multiple in _MULTIPLES
        if (out := _shape(engine, channels[0], maps, _PROBE + multiple)) is not None
    ]
    if not found:
        raise _refused(
            path, engine, f"an output 1, 2, 3 … times the size of photos of about {2 * _PROBE} pixels a side"
        )
    multiple, (out_channels, scale) = found[0]
    network = GraphNetwork(
        compute=engine,
        in_channels=channels[0],
        out_channels=out_channels,
        condition_channels=maps,
        scale=scale,
        size_multiple=multiple,
    )
    side = measuring.SMALL
    taken = measuring.megabytes(lambda: network, network, side)
    network.bytes_per_pixel = None if taken is None else max(taken * 1e6 / side**2, 1.0)
    return network


def _shape(engine: Compute, channels: int, maps: int, side: int) -> tuple[int, int] | None:
    """Channels and scale of the output at this size; None if it fails or has another shape."""
    condition = torch.zeros(1, maps, side, side) if maps else None
    try:
        y = engine(torch.full((1, channels, side, side), 0.5), condition)
    except (RuntimeError, MemoryError):
        return None
    scale = y.shape[-1] // side
    return (y.shape[1], scale) if y.ndim == 4 and y.shape[2:] == (scale * side, scale * side) else None


def _refused(path: Path, engine: OnnxEngine | OpenvinoEngine, wanted: str) -> ValueError:
    listed = ", ".join(f"{name} {shape}" for name, shape in {**engine.inputs, **engine.outputs}.items())
    return ValueError(f"{path} cannot restore photos: expected {wanted}, got {listed}")
