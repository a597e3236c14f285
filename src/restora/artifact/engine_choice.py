"""Which engine computes a restorer's tiles: torch, or one that is faster for this network and machine.

A model folder holds what was measured at its export. On another machine, or with other threads, engines are
measured again before the first photo that is large enough for that to pay.
"""

import logging
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from restora.artifact import measuring
from restora.artifact.engines import ENGINES, available, open_engine
from restora.artifact.formats import FORMATS
from restora.artifact.graph_network import GraphNetwork
from restora.artifact.model_folder import ONNX, ModelDescription
from restora.artifact.onnx_model import write_onnx
from restora.artifact.parity import Compute
from restora.artifact.prepared import prepare_network
from restora.networks.base import Network

log = logging.getLogger(__name__)


@dataclass
class EngineChoice:
    """What computes a restorer's tiles: torch's `network`, or the engine that is faster on this machine.

    `graphs` are the files that engines can run, `paces` seconds per megapixel that were measured on this very
    machine, "torch" among them. Where there are none, they are measured before the first photo that is
    large enough for that to pay. Copies of a restorer share it.
    """

    network: Network
    graphs: Mapping[str, Path]
    paces: Mapping[str, float]
    name: str = "torch"
    compute: Compute | None = None

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self.settled = not self.graphs
        if self.graphs and self.paces.keys() >= {"torch", *self.graphs}:
            self.take(min(self.paces, key=lambda name: self.paces[name]))

    def take(self, name: str) -> None:
        self.name, self.settled = name, True
        self.compute = None if name == "torch" else open_engine(name, self.graphs[name])

    def for_photo(self, pixels: int) -> Compute:
        """What computes a photo of so many pixels."""
        if not self.settled and pixels >= _WORTH_MEASURING:
            with self._lock:
                if not self.settled:
                    self._measure()
        return self.network if self.compute is None else self.compute

    def _measure(self) -> None:
        computes: dict[str, Compute] = {"torch": self.network}
        for name, path in self.graphs.items():
            try:
                computes[name] = open_engine(name, path)
            except ValueError as error:
                log.warning("%s is left out: %s", name, error)
        self.paces = measuring.paces(computes, self.network, measuring.SMALL)
        self.name = min(self.paces, key=lambda name: self.paces[name])
        self.compute, self.settled = computes[self.name], True


_WORTH_MEASURING = 250_000
"""Pixels of a photo before which engines are measured on a small one, of a quarter of them."""


def graphs_in(folder: Path, description: ModelDescription) -> tuple[dict[str, Path], dict[str, float]]:
    """What engines that are installed can run of a model folder, in float32, and what was measured of them.

    The latter is empty unless it was measured on this machine with as many threads.
    """
    parity = description.parity
    rows: Mapping[str, Mapping[str, Any]] = parity.get("formats") or {}
    graphs, paces = {}, {}
    for name, made in FORMATS.items():
        path = folder / made.files[0]
        if (
            name in rows
            and made.exact
            and made.engine in ENGINES
            and available(made.engine)
            and path.is_file()
        ):
            graphs[made.engine] = path
            paces[made.engine] = float(rows[name]["seconds_per_megapixel"])
    if graphs:
        paces["torch"] = float(rows["safetensors"]["seconds_per_megapixel"])
    machine = parity.get("machine") or {}
    here = (measuring.processor(), torch.get_num_threads())
    return graphs, paces if (machine.get("cpu"), machine.get("threads")) == here else {}


def exported(
    network: Network,
    local_converter: tuple[int, int] | None,
    engine: str,
    prepared: Network,
    graphs: Mapping[str, Path],
) -> EngineChoice:
    """The engine that the user has named, on the model folder's graph or one that is exported for it now."""
    chosen = EngineChoice(prepared, {}, {})
    if isinstance(network, GraphNetwork):
        raise ValueError(f"this graph has an engine of its own: leave out engine {engine}")
    if engine in graphs:
        chosen.graphs = graphs
        chosen.take(engine)
        return chosen
    if missing := FORMATS["onnx"].missing:
        raise ValueError(
            f"engine {engine} needs a graph, and {', '.join(missing)} to make one: pip install "
            "'restora[onnx]', or restore with a model folder that has one"
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ONNX
        write_onnx(prepare_network(network, local_converter), path, local_converter=local_converter)
        chosen.compute, chosen.name = open_engine(engine, path), engine
    return chosen
