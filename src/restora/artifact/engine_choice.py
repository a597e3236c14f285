"""The choice of a restorer's engine: torch, or one that is faster for this network and machine.

A model folder holds the speeds measured at its export, for small and for large tiles, because the fastest
engine may differ between them. On another machine, or with another number of threads, engines are measured
again once that pays off.
"""

import logging
import tempfile
import threading
from collections import Counter
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
    """The engine of a restorer's tiles: torch's `network`, or one that is faster on this machine.

    `graphs` are the files that engines can run. `paces` are seconds per megapixel by side of a square photo
    and engine, "torch" among them, as measured on this very machine; missing ones are measured once as many
    pixels were restored as measuring takes. Copies of a restorer share one choice.
    """

    network: Network
    graphs: Mapping[str, Path]
    paces: Mapping[int, Mapping[str, float]]
    name: str = "torch"
    """The engine that computed last, or before that the one for large tiles."""

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._computes: dict[str, Compute] = {"torch": self.network}
        self._measured = {
            side: table for side, table in self.paces.items() if table.keys() >= {"torch", *self.graphs}
        }
        self._sides = tuple(self._measured)
        self._seen: Counter[int] = Counter()
        if self.graphs and self._measured:
            self.name = _fastest(self._measured[max(self._measured)])

    def __reduce__(self) -> tuple[Any, ...]:
        """For copies and other processes, which open their engines anew.

        Raises TypeError for an engine that the user has named.
        """
        if self.name not in ("torch", *self.graphs):
            raise TypeError(f"engine {self.name} cannot be copied: load the restorer where it is used")
        return EngineChoice, (self.network, self.graphs, self.paces)

    def take(self, name: str, compute: Compute) -> None:
        """Makes `compute` the only engine from now on."""
        self.graphs, self.name, self._computes[name] = {}, name, compute

    def for_tiles(self, pixels: int, all_pixels: int) -> Compute:
        """The engine for tiles of `pixels` pixels, in photos of `all_pixels`."""
        if self.graphs:
            with self._lock:
                self._choose(pixels, all_pixels)
        return self._computes[self.name]

    def _choose(self, pixels: int, all_pixels: int) -> None:
        self._sides = self._sides or measuring.sides_for(self.network, self.network)
        side = measuring.nearest_side(self._sides, pixels)
        self._seen[side] += all_pixels
        if side not in self._measured:
            if self._seen[side] < measuring.FEWEST * (1 + len(self.graphs)) * side**2:
                return
            for name in self.graphs:
                self._opened(name)
            self._measured[side] = measuring.paces(self._computes, self.network, side)
        self.name = _fastest(self._measured[side])
        self._opened(self.name)

    def _opened(self, name: str) -> None:
        if name not in self._computes:
            try:
                self._computes[name] = open_engine(name, self.graphs[name])
            except ValueError as error:
                log.warning("%s is left out: %s", name, error)
                self.graphs = {other: path for other, path in self.graphs.items() if other != name}
                self._measured = {
                    side: {other: pace for other, pace in table.items() if other != name}
                    for side, table in self._measured.items()
                }
                self.name = "torch"


def _fastest(paces: Mapping[str, float]) -> str:
    return min(paces, key=lambda name: paces[name])


def graphs_in(
    folder: Path, description: ModelDescription
) -> tuple[dict[str, Path], dict[int, dict[str, float]]]:
    """The float32 graphs of a model folder for installed engines, and the engines' paces by side.

    The paces are empty unless they were measured on this machine with the same number of threads.
    """
    parity = description.parity
    rows: Mapping[str, Mapping[str, Any]] = parity.get("formats") or {}
    machine = parity.get("machine") or {}
    graphs: dict[str, Path] = {}
    paces: dict[int, dict[str, float]] = {}

    def add(engine: str, row: Mapping[str, Any]) -> None:
        by_side = row.get("seconds_per_megapixel_by_side") or {
            machine.get("side", measuring.LARGE): row["seconds_per_megapixel"]
        }
        for side, pace in by_side.items():
            paces.setdefault(int(side), {})[engine] = float(pace)

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
            add(made.engine, rows[name])
    if graphs:
        add("torch", rows["safetensors"])
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
        chosen.take(engine, open_engine(engine, graphs[engine]))
        return chosen
    if missing := FORMATS["onnx"].missing:
        raise ValueError(
            f"engine {engine} needs a graph, and {', '.join(missing)} to make one: pip install "
            "'restora[onnx]', or restore with a model folder that has one"
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ONNX
        write_onnx(prepare_network(network, local_converter), path, local_converter=local_converter)
        chosen.take(engine, open_engine(engine, path))
    return chosen
