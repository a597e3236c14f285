"""What a model folder holds, and how it is read.

`weights.safetensors` are the network's parameters and buffers under the names of the architecture's published
checkpoints; `model.json` says which class they belong to and what the model was trained for; `model.onnx` and
`README.md` are for other programs and for people. Only classes of this package's networks are ever built,
from plain JSON values: opening a stranger's folder runs none of the stranger's code.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError
from safetensors.torch import load_file, save

from restora import registry
from restora.files import read_json, write_json
from restora.networks.base import Network
from restora.networks.weights import load_state

FORMAT = 2
READABLE = (1, 2)
WEIGHTS, DESCRIPTION, ONNX, CARD = "weights.safetensors", "model.json", "model.onnx", "README.md"


@dataclass(frozen=True)
class ModelDescription:
    """The content of model.json; plain JSON values only.

    `network` is {"name": registered name, "arguments": {…}}; `evaluation` {"local_converter": [height,
    width] or null}; `degradation` the configuration that the model was trained against and `data` that of
    its photos; `parity` the measured differences of the export.
    """

    name: str
    task: str
    family: str
    network: dict[str, Any]
    scale: int
    in_channels: int
    out_channels: int
    condition_channels: int
    size_multiple: int
    evaluation: dict[str, Any] = field(default_factory=dict)
    degradation: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    parity: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    format: int = FORMAT

    @property
    def local_converter(self) -> tuple[int, int] | None:
        """Training patch (height, width) of the test-time local converter, None where it is not used."""
        size = self.evaluation.get("local_converter")
        return None if size is None else (int(size[0]), int(size[1]))

    @property
    def sigma(self) -> float | None:
        """The one noise level, on the 8-bit scale, that the model was trained at; None for a range or no
        noise."""
        noises = [
            node
            for node in nodes(self.degradation)
            if registry.part_of(node, "degradation") is registry.find("degradation", "gaussian_noise")
        ]
        levels = [node.get("sigma") for node in noises]
        level = levels[0] if len(levels) == 1 else None
        return float(level) if isinstance(level, int | float) else None

    @property
    def told(self) -> Literal["nothing", "noise level", "mask", "maps"]:
        """What the network is told beside the photo: a noise level, a mask of known pixels, or several
        maps."""
        if self.condition_channels == 0:
            return "nothing"
        marks = [mark for node in nodes(self.degradation) for mark in _undamaged(_class_of(node))]
        if self.condition_channels > 1 or len(set(marks)) > 1:
            return "maps"
        return "mask" if marks and marks[0] == 1 else "noise level"

    @property
    def fill(self) -> float | None:
        """What lost pixels were replaced by in training, None where they kept some content."""
        fills = [node["fill"] for node in nodes(self.degradation) if "fill" in node]
        return float(fills[0]) if fills else None


def nodes(config: Any) -> Iterator[Mapping[str, Any]]:
    """Every degradation in a degradation's configuration, the stages of chains included."""
    if isinstance(config, Mapping):
        if "_target_" in config:
            yield config
        for value in config.values():
            yield from nodes(value)
    elif isinstance(config, list | tuple):
        for value in config:
            yield from nodes(value)


def _class_of(node: Mapping[str, Any]) -> str:
    return str(node["_target_"])


def _undamaged(class_name: str) -> tuple[float, ...]:
    """What the condition of a degradation of this package reads at undamaged pixels; () where it has none."""
    marks = getattr(registry.part_of({"_target_": class_name}, "degradation"), "undamaged", ())
    return marks if isinstance(marks, tuple) else ()


def read_description(folder: Path) -> ModelDescription:
    """Read `folder`/model.json. Raises ValueError that names what is missing or wrong."""
    path = folder / DESCRIPTION
    if not path.is_file():
        raise ValueError(
            f"{folder} is not a model folder: it has no {DESCRIPTION} (make one with `restora export`)"
        )
    try:
        values = read_json(path)
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}): export the model again") from error
    if not isinstance(values, dict):
        raise ValueError(
            f"{path} must hold a JSON object, it holds a {type(values).__name__}: export the model again"
        )
    if values.get("format") not in READABLE:
        raise ValueError(
            f"{path} has format {values.get('format')!r}, this version of restora reads {READABLE}: "
            "use the version of restora that wrote it, or export the model again"
        )
    known = {item.name: item for item in fields(ModelDescription)}
    required = [name for name in list(known)[: list(known).index("evaluation")] if name not in values]
    if required:
        raise ValueError(f"{path} lacks {', '.join(required)}: export the model again")
    return ModelDescription(**{name: values[name] for name in known if name in values})


def write_description(folder: Path, description: ModelDescription) -> None:
    """Write `folder`/model.json; values that are not plain are refused rather than turned into text."""
    write_json(folder / DESCRIPTION, {"format": description.format} | asdict(description))


def network_node(node: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name and arguments of a stored network; the first edition wrote a dotted class path instead of a
    name."""
    name = node.get("name", node.get("class"))
    arguments = node.get("arguments")
    if not isinstance(name, str) or not isinstance(arguments, Mapping):
        raise ValueError(f"a stored network is {{name, arguments}}, got {dict(node)}")
    return name, dict(arguments)


def build_network(name: str, arguments: Mapping[str, Any]) -> Network:
    """The registered network `name`, made with `arguments` and fresh weights."""
    found = network_class(name)
    try:
        return found(**arguments)
    except TypeError as error:
        raise ValueError(f"{name} does not take the arguments {dict(arguments)}: {error}") from error


def network_class(name: str) -> type[Network]:
    """The class of a stored network name. Raises ValueError for what is not a registered network."""
    found = registry.find("network", name)
    if not issubclass(found, Network):
        raise ValueError(f"{name!r} is not a network (a subclass of restora.networks.base.Network)")
    return found


def save_weights(network: Network, folder: Path) -> None:
    """Write `folder`/weights.safetensors, as the tools that know the architecture expect it."""
    state = {
        name: value.detach().cpu().clone().contiguous()
        for name, value in network.published_state_dict().items()
    }
    (folder / WEIGHTS).write_bytes(save(state, metadata={"format": "pt"}))


def load_model_folder(folder: str | Path) -> tuple[ModelDescription, Network]:
    """The description and the network with its weights, in evaluation mode on the CPU.

    Raises ValueError when the folder is incomplete or its parts do not belong together.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"there is no model folder {folder} (make one with `restora export`)")
    description = read_description(folder)
    network = build_network(*network_node(description.network))
    path = folder / WEIGHTS
    if not path.is_file():
        raise ValueError(f"{folder} has no {WEIGHTS}: export the model again")
    try:
        weights = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}): export the model again") from error
    load_state(network, weights, str(path))
    return description, network.eval()
