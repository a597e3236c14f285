"""Opens any source of a model, and gives its network.

A source is a model folder or one file of it, a run folder (its best checkpoint), a checkpoint of `restora
train`, a weights file of an architecture of restora or spandrel, recognised from the names and shapes in it,
a graph of ONNX, or a model that comes with restora (`zoo:NAME`). Nothing that a file contains is executed,
and a file alone never causes an import: custom networks have to be registered first (plugins).
"""

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from restora import registry, vocabulary
from restora.arguments import check_arguments
from restora.artifact import foreign
from restora.artifact.checkpoint import RECORD, checkpoint_network, locate, read_checkpoint
from restora.artifact.formats import FILES
from restora.artifact.graph_network import ENGINE_OF, graph_like, strangers_graph
from restora.artifact.model_folder import (
    DESCRIPTION,
    WEIGHTS,
    ModelDescription,
    build_network,
    check_digest,
    load_model_folder,
    network_class,
    network_node,
    stated_in,
)
from restora.networks.base import Network
from restora.networks.recognition import UnknownWeights, recognise
from restora.networks.weights import (
    WeightsError,
    as_overrides,
    is_torch_file,
    network_from_weights,
    read_tensors,
)
from restora.zoo.index import folder_of, is_zoo, names


@dataclass(frozen=True)
class Loaded:
    """A network with its weights and what is known of it.

    `arguments` are the constructor's, `changed` those that the weights corrected or gave, `said` a note for
    the user on how the file was read; `local_converter`, `degradation`, `protocol` and `task` are of its
    training, None where unknown.
    """

    name: str
    network: Network
    source: str
    changed: dict[str, Any] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)
    family: str = "unknown"
    local_converter: tuple[int, int] | None = None
    degradation: dict[str, Any] | None = None
    protocol: dict[str, Any] | None = None
    task: str | None = None
    config: dict[str, Any] | None = None
    """The configuration of the run that a checkpoint came from."""
    reference: str | None = None
    """What the figures of the run's own photos compare with: `clean` or `noisy` ones."""
    said: str = ""
    described: ModelDescription | None = None
    """The description in the model folder, if the source is one."""
    folder: Path | None = None
    """The model folder, whose other formats an engine may run."""

    @property
    def says_its_task(self) -> bool:
        """Whether the source itself states its task; for weights alone the task is a guess."""
        task = self.task if self.described is None else self.described.task
        return task not in (None, "unknown")

    @property
    def description(self) -> ModelDescription:
        """The model's description: that of its model folder, or what can be inferred from the file.

        Weights alone do not state their task: it is super-resolution if the network enlarges, else the first
        task of its paper.
        """
        if self.described is not None:
            return self.described
        network = self.network
        usual = "super_resolution" if network.scale > 1 else next(iter(network.tasks), "unknown")
        return ModelDescription(
            name=self.name,
            task=self.task or usual,
            family=self.family,
            network={"name": registry.name_of(type(network)), "arguments": dict(self.arguments)},
            scale=network.scale,
            in_channels=network.in_channels,
            out_channels=network.out_channels,
            condition_channels=network.condition_channels,
            size_multiple=network.size_multiple,
            evaluation={"local_converter": self.local_converter},
            degradation=registry.stored(self.degradation or {}, "degradation"),
            frames=network.frames,
        )


def open_source(source: str | Path, *, task: str | None = None, network: str | None = None) -> Loaded:
    """The network of any source of a model, in evaluation mode.

    A model folder or one file of it, a run folder, a checkpoint, a weights file, a graph or `zoo:NAME`.
    `task` is the model's task, if the source itself does not state it; `network` the network of a weights
    file that does not show it, as NAME or NAME,ARGUMENT=VALUE,…

    Raises ValueError for any other source, or for a network that this installation does not know.
    """
    if not isinstance(source, str | Path) or not str(source):
        got = type(source).__name__ if isinstance(source, torch.nn.Module) else repr(source)
        use = ": for a network use Restorer(network=…)" if isinstance(source, Network) else ""
        raise ValueError(f"a source of a model is a path or zoo:NAME, got {got}{use}")
    task = vocabulary.task(task)
    loaded = _opened(source) if network is None else _as_network(source, network)
    if task is None or loaded.says_its_task:
        return loaded
    described = loaded.described
    return replace(loaded, task=task, described=None if described is None else replace(described, task=task))


def _opened(source: str | Path) -> Loaded:
    path = folder_of(str(source)) if is_zoo(source) else Path(source).expanduser()
    if path.is_dir():
        return _from_folder(path)
    if not path.exists():
        if str(source) in names():
            raise ValueError(f"there is no {source}: the model that comes with restora is zoo:{source}")
        if "://" in str(source):
            raise ValueError(f"{source} is an address: download the file first and give its path")
        raise ValueError(
            f"there is no {source}: a model is a model folder, a run folder, a checkpoint (.ckpt), a "
            "weights file (.pth, .safetensors), a graph (.onnx, .xml) or one that comes with restora "
            "(zoo:NAME)"
        )
    if path.name in (WEIGHTS, *FILES) and (path.parent / DESCRIPTION).is_file():
        return from_file_of_folder(path)
    if path.suffix in ENGINE_OF:
        return from_graph(path)
    suffix = path.suffix.lower()
    if suffix == ".bin" and not is_torch_file(path):
        suffix = ".param"
    if suffix in _OTHERS:
        raise ValueError(f"{path} is of {_OTHERS[suffix]}")
    return own_checkpoint(path) or from_weights_alone(str(path))


def own_checkpoint(path: Path) -> Loaded | None:
    """The network of a `.ckpt` of `restora train`; None for a checkpoint of other code, a weights file."""
    if path.suffix != ".ckpt":
        return None
    try:
        return from_checkpoint(str(path))
    except ValueError as error:
        if "was not written by" not in str(error) and "Python objects" not in str(error):
            raise
    return None


def _as_network(source: str | Path, words: str) -> Loaded:
    """The weights in a file as the network that the user names (`open_source`)."""
    path = Path(source).expanduser()
    weights_alone = path.is_file() and path.suffix not in ENGINE_OF and stated_in(path) is None
    if not weights_alone or own_checkpoint(path) is not None:
        if not path.exists() and not is_zoo(source):
            _opened(source)  # says so
        raise ValueError(f"{source} states its network: leave out the network {words}")
    name, *given = re.split(r",(?![^\[]*\])", words)
    arguments: dict[str, Any] = {}
    for word in given:
        key, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f"the network is NAME or NAME,ARGUMENT=VALUE,…, got {word!r} in {words!r}")
        try:
            arguments[key.removeprefix("network.")] = json.loads(value)
        except ValueError:
            arguments[key.removeprefix("network.")] = value
    check_arguments(network_class(name), arguments, where="network", name=name)
    loaded = from_weights({"_target_": name, **arguments}, str(path), name=path.stem, chosen=arguments)
    said = f"{path} is read as {type(loaded.network).__name__}: {as_overrides(loaded.arguments)}"
    return replace(loaded, said=said)


def _from_folder(path: Path) -> Loaded:
    """A model folder or a run. Raises ValueError for others, naming a weights file in them, if any."""
    if (path / DESCRIPTION).is_file():
        return from_model_folder(str(path))
    if (path / RECORD).is_file():
        return from_checkpoint(str(path))
    if (path / "saved_model.pb").is_file():
        raise ValueError(f"{path} is of {_OTHERS['.pb']}")
    inside = sorted(each for each in path.iterdir() if each.suffix in _WEIGHTS)
    more = f"; to use the weights in it, name {inside[0]}" if inside else ""
    raise ValueError(f"{path} is neither a model folder ({DESCRIPTION}) nor a run ({RECORD}){more}")


def from_weights(
    node: Mapping[str, Any], path: str, *, name: str, chosen: Collection[str] = (), scale: int | None = None
) -> Loaded:
    """The network of a configuration node with the weights in a file.

    Arguments inferred from the weights replace those that the user did not choose. A network that enlarges
    takes the scale of the benchmark if neither sets it.
    """
    target = str(node["_target_"])
    arguments = {str(key): value for key, value in node.items() if key != "_target_"}
    if scale is not None and "scale" not in chosen and arguments.get("scale", 1) != 1:
        arguments["scale"] = scale
    cls = network_class(target)  # raises ValueError for a name that is not a registered network
    network, changed = network_from_weights(cls, arguments, path, chosen=chosen)
    return Loaded(name, network.eval(), str(path), changed, {**arguments, **changed})


def from_weights_alone(path: str) -> Loaded:
    """The network inferred from names and shapes in a weights file: one of restora's, else of spandrel's."""
    if (stated := stated_in(Path(path))) is not None:
        return _from_stated(path, stated)
    known_elsewhere = foreign.installed()
    try:
        found = recognise(path, by_order=not known_elsewhere)
    except UnknownWeights as error:
        if not known_elsewhere:
            more = f"; {foreign.INSTALL} adds the architectures of spandrel"
            raise UnknownWeights(f"{error}{more}") from None
        try:
            return from_foreign_weights(path)
        except WeightsError as unknown:
            try:
                found = recognise(path)
            except UnknownWeights:
                raise unknown from None
    return Loaded(
        name=found.name,
        network=found.network.eval(),
        source=str(path),
        changed=dict(found.arguments),
        arguments=found.arguments,
        said=found.said,
    )


def _from_stated(path: str, stated: Mapping[str, Any]) -> Loaded:
    """The network that the header of a weights file states, with arguments that no weight shows."""
    try:
        name, arguments = network_node(stated["network"])
        plugins = [str(module) for module in stated["plugins"]]
        network = build_network(name, arguments, read_tensors(Path(path)), path, plugins=plugins)
    except WeightsError:
        raise
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return Loaded(
        name=Path(path).stem,
        network=network.eval(),
        source=str(path),
        changed=arguments,
        arguments=arguments,
        family=stated["family"],
        task=None if stated["task"] == "unknown" else stated["task"],
        said=f"{path} states that it holds {type(network).__name__}: {as_overrides(arguments)}",
    )


def from_checkpoint(path: str) -> Loaded:
    """The network of a run folder (its best checkpoint) or of a checkpoint file; averaged weights if any."""
    source = locate(path)
    checkpoint = read_checkpoint(source.checkpoint)
    ours = checkpoint["restora"]
    evaluation = ours.get("evaluation") or {}
    size = evaluation.get("local_converter")
    return Loaded(
        name=str(ours.get("name") or source.checkpoint.stem),
        network=checkpoint_network(checkpoint, str(source.checkpoint)),
        source=str(source.checkpoint),
        local_converter=None if size is None else (int(size[0]), int(size[1])),
        degradation=ours.get("degradation") or None,
        protocol=evaluation.get("protocol"),
        config=source.record.get("config"),
        reference=ours.get("reference") or source.record.get("reference"),
        task=ours.get("task"),
        arguments=network_node(ours["network"])[1],
        family=str(ours.get("family") or "unknown"),
    )


def from_foreign_weights(path: str) -> Loaded:
    """The network that spandrel recognises; its task is known only from the purpose that spandrel gives."""
    network = foreign.foreign_network(read_tensors(Path(path)), path)
    described = ModelDescription(
        name=Path(path).stem,
        task=network.task,
        family="unknown",
        network={"name": foreign.NAME, "arguments": {"architecture": network.architecture}},
        scale=network.scale,
        in_channels=network.in_channels,
        out_channels=network.out_channels,
        condition_channels=network.condition_channels,
        size_multiple=network.size_multiple,
    )
    said = f"{path} holds {network.described()}"
    return Loaded(name=described.name, network=network, source=str(path), described=described, said=said)


def from_file_of_folder(path: Path) -> Loaded:
    """The model of a folder, computed by one of its files.

    A .pt2 file is not run, because torch executes what it finds in one: the folder's weights are used.
    """
    loaded = from_model_folder(str(path.parent))
    if path.suffix not in ENGINE_OF:
        return loaded
    assert loaded.described is not None
    check_digest(path.parent, path.name, loaded.described)
    parity = loaded.described.parity
    row = next(
        (row for row in (parity.get("formats") or {}).values() if path.name in row.get("files", ())), None
    )
    taken = None if row is None else row.get("peak_megabytes")
    side = (parity.get("machine") or {}).get("side")
    network = graph_like(
        loaded.network, path, bytes_per_pixel=taken * 1e6 / side**2 if taken and side else None
    )
    # the converter is in the graph
    described = replace(loaded.described, evaluation={**loaded.described.evaluation, "local_converter": None})
    return replace(
        loaded, network=network, source=str(path), local_converter=None, described=described, folder=None
    )


def from_graph(path: Path) -> Loaded:
    """A foreign graph of ONNX or OpenVINO; its task is not known."""
    network = strangers_graph(path)
    described = ModelDescription(
        name=path.stem,
        task="super_resolution" if network.scale > 1 else "unknown",
        family="unknown",
        network={"name": "graph", "arguments": {}},
        scale=network.scale,
        in_channels=network.in_channels,
        out_channels=network.out_channels,
        condition_channels=network.condition_channels,
        size_multiple=network.size_multiple,
    )
    said = (
        f"{path} is a graph of {network.in_channels} to {network.out_channels} channels, enlarging "
        f"{network.scale} times, assumed to work on [0,1]; its task and noise level are unknown"
    )
    return Loaded(name=path.stem, network=network, source=str(path), described=described, said=said)


_WEIGHTS = (".pth", ".pt", ".ckpt", ".safetensors", ".bin", ".onnx")
_RETOLD = "use the same weights as .pth, .safetensors or .onnx"
_TO_ONNX = "converts it to .onnx, which restora runs"
_OTHERS = {
    ".pt2": "torch.export, which may run any code: use a model folder of `restora export`, or the weights "
    "(.pth, .safetensors) that it was made from",
    ".param": "ncnn, which cannot be converted back: use the .pth or .onnx that it was made from, or run it "
    "with Upscayl or realesrgan-ncnn-vulkan",
    **dict.fromkeys(
        (".pb", ".h5", ".keras", ".tflite"), f"TensorFlow: tf2onnx (python -m tf2onnx.convert) {_TO_ONNX}"
    ),
    **dict.fromkeys((".pdmodel", ".pdparams"), f"PaddlePaddle: paddle2onnx {_TO_ONNX}"),
    **dict.fromkeys((".t7", ".caffemodel", ".prototxt", ".mat"), f"another library: {_RETOLD}"),
    ".msgpack": f"Flax: {_RETOLD}",
    ".ptl": f"TorchScript, which may run any code: {_RETOLD}",
    **dict.fromkeys(
        (".engine", ".plan"), "TensorRT, made for one kind of GPU: use the .onnx that it was made from"
    ),
    **dict.fromkeys(
        (".mlmodel", ".mlpackage"), "Core ML: use the weights or the .onnx that it was made from"
    ),
}
"""Extensions of files that are not read: their program, and the nearest format that is read."""


def from_model_folder(path: str) -> Loaded:
    """The network of a model folder that `restora export` wrote."""
    description, network = load_model_folder(Path(path))
    return Loaded(
        name=description.name,
        network=network,
        source=str(path),
        local_converter=description.local_converter,
        degradation=description.degradation or None,
        protocol=description.evaluation.get("protocol"),
        task=description.task,
        arguments=network_node(description.network)[1],
        family=description.family,
        described=description,
        folder=Path(path),
    )
