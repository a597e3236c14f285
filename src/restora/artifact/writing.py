"""Writes the formats of a model folder, and opens the files just written.

Note: a .pt2 file runs code when it is opened (torch.export.load unpickles), so restora writes and checks its
own and never opens another's.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from restora.artifact.engines import open_engine
from restora.artifact.formats import FORMATS
from restora.artifact.model_folder import ONNX
from restora.artifact.onnx_model import any_size_program, write_onnx
from restora.artifact.parity import Compute, Sample
from restora.artifact.quantised import write_half, write_int8
from restora.networks.base import Network


class Writer:
    """Writes the formats of one prepared network into `folder`; several are made from the graph of ONNX.

    `local_converter` is the training patch that the network was converted with, if it was; `photos` are what
    int8 is calibrated on.
    """

    def __init__(
        self,
        network: Network,
        folder: Path,
        *,
        local_converter: tuple[int, int] | None,
        photos: Sequence[Sample],
    ) -> None:
        self._network, self._folder = network, folder
        self._local_converter, self._photos = local_converter, photos
        self._scratch = tempfile.TemporaryDirectory(prefix=".graph-", dir=folder.parent)
        self._graph: Path | None = None

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self._scratch.cleanup()

    def write(self, name: str) -> None:
        target = self._folder / FORMATS[name].files[0]
        if name == "pt2":
            torch.export.save(any_size_program(self._network, local_converter=self._local_converter), target)
        elif name == "onnx":
            target.write_bytes(self._onnx().read_bytes())
        elif name == "onnx-fp16":
            write_half(self._onnx(), target)
        elif name == "onnx-int8":
            write_int8(self._onnx(), target, self._photos)
        else:
            _write_openvino(self._onnx(), target)

    def _onnx(self) -> Path:
        if self._graph is None:
            path = Path(self._scratch.name) / ONNX
            write_onnx(self._network, path, local_converter=self._local_converter)
            self._graph = path
        return self._graph


def _write_openvino(graph: Path, target: Path) -> None:
    import openvino

    openvino.save_model(openvino.Core().read_model(str(graph)), str(target), compress_to_fp16=False)


def opened(name: str, folder: Path) -> Compute:
    """A function that runs the file of a format that this process wrote to `folder`."""
    path = folder / FORMATS[name].files[0]
    if name != "pt2":
        return open_engine(FORMATS[name].engine, path)
    program = torch.export.load(path).module()

    def run(x: Tensor, condition: Tensor | None) -> Tensor:
        """One photo after the other, as programs of networks that reshape by the batch take no more."""
        inputs = (x,) if condition is None else (x, condition)
        return torch.cat([program(*photo) for photo in zip(*(part.split(1) for part in inputs), strict=True)])

    return run
