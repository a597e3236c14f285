"""The contents of a model folder, and how it is read.

`weights.safetensors` are the network's parameters and buffers under the names of the architecture's published
checkpoints; `model.json` gives the class that they belong to and the purpose of the model; `model.onnx` and
`README.md` are for other programs and for people. Only registered networks are ever built, from plain JSON
values and within sane sizes: opening an untrusted folder runs none of its code. `model.json` has the SHA-256
of the other files, so that a damaged folder is recognised.
"""

import hashlib
import json
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from restora import registry
from restora.arguments import fits, shown, wanted
from restora.artifact import foreign
from restora.artifact.bounded import build_bounded, imagined
from restora.degradations.base import Degradation
from restora.files import is_safetensors, json_text, read_json, write_json
from restora.networks.base import Network
from restora.networks.weights import WeightsError, load_state

FORMAT = 2
READABLE = (1, 2)
_HEADER = "restora"
"""The key of the header of a file of weights."""
_STATED: dict[str, type] = {"network": dict, "task": str, "family": str, "plugins": list}
WEIGHTS, DESCRIPTION, ONNX, CARD = "weights.safetensors", "model.json", "model.onnx", "README.md"


@dataclass(frozen=True)
class ModelDescription:
    """The content of model.json; plain JSON values only.

    `network` is {"name": registered name, "arguments": {…}}; `evaluation` {"local_converter": [height,
    width] or null}; `degradation` the configuration that the model was trained against and `data` that of
    its photos; `init` the source of the weights that training started from, with its SHA-256; `parity` the
    measured differences of the export; `sha256` of the files beside it, by name; `plugins` the modules that
    its parts came from; `frames` the consecutive frames of a video whose channels `in_channels` counts.
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
    init: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    parity: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    sha256: dict[str, str] = field(default_factory=dict)
    plugins: list[str] = field(default_factory=list)
    frames: int = 1
    format: int = FORMAT

    @property
    def local_converter(self) -> tuple[int, int] | None:
        """Training patch (height, width) of the test-time local converter, None where it is not used."""
        size = self.evaluation.get("local_converter")
        return None if size is None else (int(size[0]), int(size[1]))

    @property
    def sigma(self) -> float | None:
        """The one noise level, on the 8-bit scale, that the model was trained at.

        None for a range or no noise.
        """
        made = self.undoes
        found = None if made is None else made.severities.get("sigma")
        return found.low if found is not None and found.low == found.high else None

    @property
    def conditioned_on(self) -> Literal["nothing", "noise level", "mask", "maps"]:
        """What the network is conditioned on: a noise level, a mask of known pixels, or several maps."""
        if self.condition_channels == 0:
            return "nothing"
        if self.undoes is None and self.task == "inpaint" and self.condition_channels == 1:
            return "mask"
        marks = () if self.undoes is None else self.undoes.undamaged
        if self.condition_channels > 1 or len(set(marks)) > 1:
            return "maps"
        return "mask" if marks and marks[0] == 1 else "noise level"

    @property
    def fill(self) -> float | None:
        """The value that replaced lost pixels in training, None where they kept some content."""
        return None if self.undoes is None else self.undoes.fill

    @cached_property
    def undoes(self) -> Degradation | None:
        """The degradation that the model was trained against; None if it is not known here."""
        try:
            made = registry.build(self.degradation, "degradation")
        except ValueError:
            return None
        return made if isinstance(made, Degradation) else None


def read_description(folder: Path) -> ModelDescription:
    """Read `folder`/model.json. Raises ValueError that names what is missing or wrong."""
    path = folder / DESCRIPTION
    if not path.is_file():
        raise ValueError(
            f"{folder} is not a model folder: it has no {DESCRIPTION} (make one with `restora export`)"
        )
    try:
        values = read_json(path)
    except (OSError, ValueError, RecursionError) as error:
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
    for name, kind in _KINDS.items():
        if name in values and (not isinstance(values[name], kind) or isinstance(values[name], bool)):
            raise ValueError(
                f"{path}: {name} must be {_WORDS[kind]}, got {str(values[name])[:40]!r}: "
                "export the model again"
            )
    for name, value, hint in _nested(values):
        if not fits(value, hint):
            raise ValueError(
                f"{path}: {name} must be {wanted(hint)}, got {shown(value)}: export the model again"
            )
    return ModelDescription(**{name: values[name] for name in known if name in values})


def _nested(values: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """The values within the entries of model.json that a restorer reads: (name, value, type).

    A value is checked before those within it are asked for.
    """
    parity = values.get("parity") or {}
    size = (values.get("evaluation") or {}).get("local_converter")
    yield "evaluation.local_converter", size, tuple[int, int] | None
    machine, rows = parity.get("machine"), parity.get("formats")
    yield "parity.machine", machine, dict[str, Any] | None
    yield "parity.machine.side", (machine or {}).get("side"), int | None
    yield "parity.formats", rows, dict[str, dict[str, Any]] | None
    if rows:
        yield "parity.formats.safetensors", rows.get("safetensors"), dict[str, Any]
    for name, row in (rows or {}).items():
        where = f"parity.formats.{name}"
        yield f"{where}.files", row.get("files"), list[str]
        yield f"{where}.seconds_per_megapixel", row.get("seconds_per_megapixel"), float
        yield f"{where}.peak_megabytes", row.get("peak_megabytes"), float | None
        paces = row.get("seconds_per_megapixel_by_side")
        yield f"{where}.seconds_per_megapixel_by_side", paces, dict[str, float] | None


_KINDS: dict[str, Any] = {
    **dict.fromkeys(("name", "task", "family"), str),
    **dict.fromkeys(
        ("scale", "in_channels", "out_channels", "condition_channels", "size_multiple", "frames"), int
    ),
    **dict.fromkeys(
        ("network", "evaluation", "degradation", "data", "metrics", "parity", "versions", "sha256"), dict
    ),
}
_WORDS: dict[Any, str] = {str: "a string", int: "a whole number", dict: "a JSON object"}


def write_description(folder: Path, description: ModelDescription) -> None:
    """Write `folder`/model.json; values that are not plain are refused rather than turned into text."""
    write_json(folder / DESCRIPTION, {"format": description.format} | asdict(description))


def network_node(node: Any) -> tuple[str, dict[str, Any]]:
    """Name and arguments of a stored network, also from the first edition, which wrote a class path."""
    if isinstance(node, Mapping):
        name, arguments = node.get("name", node.get("class")), node.get("arguments")
        if isinstance(name, str) and isinstance(arguments, Mapping):
            return name, {str(key): value for key, value in arguments.items()}
    raise ValueError(f"a stored network must be {{name, arguments}}, got {str(node)[:80]}")


def build_network(
    name: str,
    arguments: Mapping[str, Any],
    weights: Mapping[str, Tensor] | None = None,
    where: str = "",
    *,
    plugins: Iterable[str] = (),
) -> Network:
    """The registered network `name`, made with `arguments` and fresh weights.

    With `weights` (read from `where`) it has these, and takes no memory before their shapes have been found
    to fit. `plugins` are the modules that it was trained with. Raises ValueError for absurd sizes, for
    weights that do not fit, and for a network that is not registered.
    """
    found = network_class(name, plugins)
    if found is foreign.ForeignNetwork:
        if weights is None:
            raise ValueError(f"a {foreign.NAME} network is identified by its weights, and there are none")
        return foreign.foreign_network(weights, where)
    if weights is None:
        return build_bounded(found, arguments)
    ghost = imagined(found, arguments)
    shapes = {name: value.shape for name, value in weights.items()}
    if any(shapes.get(name) != value.shape for name, value in ghost.state_dict().items()):
        with warnings.catch_warnings(action="ignore"):  # copying to meta tensors does nothing
            load_state(ghost, weights, where)  # says what does not fit
    network = build_bounded(found, arguments)
    load_state(network, weights, where)
    return network


def network_class(name: str, plugins: Iterable[str] = ()) -> type[Network]:
    """The class of a stored network name.

    Raises ValueError for a name that is not a registered network; `plugins` are the modules that the file
    names as its origin, for the message.
    """
    if name == foreign.NAME:
        return foreign.ForeignNetwork
    try:
        found = registry.find("network", name)
    except registry.UnknownPart as error:
        named = " ".join(f"--plugin {module}" for module in plugins)
        if not named:
            raise
        raise ValueError(
            f"the network {name!r} is from a plugin, and a file never imports one by itself: add {named} "
            f"if you trust it (in Python, import {' and '.join(plugins)} first)"
        ) from error
    if not issubclass(found, Network):
        raise ValueError(f"{name!r} is not a network (a subclass of restora.networks.base.Network)")
    return found


def save_weights(network: Network, folder: Path, description: ModelDescription | None = None) -> None:
    """Write `folder`/weights.safetensors, as the tools that know the architecture expect it.

    Its header states the network and the task of `description`, for those who have this file alone.
    """
    state = {
        name: value.detach().cpu().clone().contiguous()
        for name, value in network.published_state_dict().items()
    }
    (folder / WEIGHTS).write_bytes(save(state, metadata=header_of(description)))


def header_of(description: ModelDescription | None) -> dict[str, str]:
    """The header of a file of weights."""
    if description is None:
        return {"format": "pt"}
    stated = {name: getattr(description, name) for name in _STATED}
    return {"format": "pt", _HEADER: json_text(stated, indent=None)}


def stated_in(path: Path) -> dict[str, Any] | None:
    """What the header of a file of `save_weights` states; None for any other file."""
    try:
        if not is_safetensors(path):
            return None
        with safe_open(path, "pt") as file:
            stated = json.loads((file.metadata() or {}).get(_HEADER, "null"))
    except (OSError, SafetensorError, ValueError, RecursionError):
        return None  # the reader of the weights says what is wrong
    wrong = not isinstance(stated, dict) or any(
        not isinstance(stated.get(name), kind) for name, kind in _STATED.items()
    )
    return None if wrong else stated


def file_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of the files of a model folder that model.json lists: all except itself and the card."""
    apart = (DESCRIPTION, CARD)
    return {path.name: _sha256(path) for path in sorted(folder.iterdir()) if path.name not in apart}


def check_digest(folder: Path, name: str, description: ModelDescription) -> None:
    """Raises ValueError if a file is not the one that was exported; older folders have no digests."""
    expected = description.sha256.get(name)
    if expected is not None and (found := _sha256(folder / name)) != expected:
        raise ValueError(
            f"{folder / name} is damaged or was changed: its SHA-256 is {found[:16]}…, {DESCRIPTION} says "
            f"{str(expected)[:16]}…: export the model again, or copy the folder again"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_model_folder(folder: str | Path) -> tuple[ModelDescription, Network]:
    """The description and the network with its weights, in evaluation mode on the CPU.

    Raises ValueError when the folder is incomplete or its parts do not belong together.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"there is no model folder {folder} (make one with `restora export`)")
    description = read_description(folder)
    path = folder / WEIGHTS
    if not path.is_file():
        raise ValueError(f"{folder} has no {WEIGHTS}: export the model again")
    for name in (WEIGHTS, ONNX):
        if (folder / name).is_file():
            check_digest(folder, name, description)
    try:
        weights = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}): export the model again") from error
    try:
        network = build_network(
            *network_node(description.network), weights, str(path), plugins=description.plugins
        )
    except WeightsError:
        raise
    except ValueError as error:
        raise ValueError(f"{folder / DESCRIPTION}: {error}") from error
    return description, network.eval()
