"""The network as a graph for any batch, height and width: of ONNX, and of torch.export.

The graph takes `degraded` (and `condition` where the network has one), float32 on the [0,1] scale, and gives
`restored`, neither clamped nor rounded. Padding to the network's multiple and cropping back are part of the
graph; so are the folded batch norm and the test-time local converter.

Legend: B photos, C channels, K condition channels, H height, W width, s scale.
"""

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.fx.experimental import _config as symbolic_shapes

from restora.networks.base import Network

OPSET = 20


class AnySize(nn.Module):
    """The network with the padding and cropping of `Network.forward`, in operations that hold for every size.

    `forward` decides in Python whether to pad at all, and torch's own padding is only exported with
    assumptions on the size; here the padded photo is a lookup of rows and columns, whatever the size.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, degraded: Tensor, condition: Tensor | None = None) -> Tensor:
        network = self.network
        multiple, scale = network.size_multiple, network.scale
        if multiple == 1:
            return network.restore(degraded, condition)
        height, width = degraded.shape[-2:]
        padded = _fill_up(degraded, multiple, network.padding)
        if condition is not None:
            condition = _fill_up(condition, multiple, network.condition_padding)
        return network.restore(padded, condition)[..., : height * scale, : width * scale]


def _fill_up(x: Tensor, multiple: int, mode: str) -> Tensor:
    """(B,C,H,W) -> both sides padded to the next multiple, as `networks.base.pad_bottom_right` does it."""
    positions = [
        torch.arange((n + multiple - 1) // multiple * multiple, device=x.device) for n in x.shape[-2:]
    ]
    sources = [at.clamp(max=n - 1) for at, n in zip(positions, x.shape[-2:], strict=True)]
    if mode == "reflect":
        mirrored = [2 * source - at for at, source in zip(positions, sources, strict=True)]
        too_small = (mirrored[0] < 0).any() | (mirrored[1] < 0).any()
        sources = [torch.where(too_small, *pair) for pair in zip(sources, mirrored, strict=True)]
    filled = x.index_select(2, sources[0]).index_select(3, sources[1])
    if mode == "constant":
        rows, columns = (at < n for at, n in zip(positions, x.shape[-2:], strict=True))
        filled = filled * (rows[:, None] & columns).to(x.dtype)
    return filled


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silences torch's exporter, which reports its progress on stdout and through loggers."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def write_onnx(network: Network, path: Path, *, local_converter: tuple[int, int] | None = None) -> None:
    """Write the graph of `network` (on the CPU, in evaluation mode) to `path`.

    `local_converter` is the training patch that the network was converted with: the traced example must be
    larger than the windows that follow from it, or the trace would take them for the whole photo.
    """
    example, names = _example(network, local_converter)
    sizes = {0: "batch", 2: "height", 3: "width"}
    with _quiet_exporter(), torch.no_grad():
        program = torch.onnx.export(
            AnySize(network).eval(),
            example,
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=tuple(sizes for _ in example),
            input_names=names,
            output_names=["restored"],
        )
        assert program is not None
        program.save(str(path), external_data=False)


def any_size_program(
    network: Network, *, local_converter: tuple[int, int] | None = None
) -> torch.export.ExportedProgram:
    """The same as a program of torch.export, to compile ahead of time or run without this package.

    Traced with one photo: the programs of networks that reshape by the batch take no larger batch.
    """
    example = tuple(part[:1] for part in _example(network, local_converter)[0])
    sizes = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    # else the program refuses sizes that need no padding, because the traced one did
    any_size = symbolic_shapes.patch(backed_size_oblivious=True)  # type: ignore[attr-defined]
    with _quiet_exporter(), torch.no_grad(), any_size:
        return torch.export.export(
            AnySize(network).eval(), example, dynamic_shapes=tuple(sizes for _ in example)
        )


def _example(
    network: Network, local_converter: tuple[int, int] | None
) -> tuple[tuple[Tensor, ...], list[str]]:
    """The inputs that the network is traced with, and their names."""
    # neither side may be a multiple of the network's or equal another size in the graph
    least = max(network.size_multiple, 16, *(local_converter or ()))
    height, width = 3 * least + 1, 5 * least + 3
    example, names = [torch.rand(2, network.in_channels, height, width)], ["degraded"]
    if network.condition_channels:
        example.append(torch.rand(2, network.condition_channels, height, width))
        names.append("condition")
    return tuple(example), names
