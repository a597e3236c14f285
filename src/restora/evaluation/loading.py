"""The network under test, from a weights file, a run, a checkpoint or a model folder."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from restora.artifact.checkpoint import checkpoint_network, locate, read_checkpoint
from restora.artifact.model_folder import load_model_folder, network_class
from restora.networks.base import Network
from restora.networks.weights import network_from_weights
from restora.registry import find, part_of


@dataclass(frozen=True)
class Loaded:
    """A network with its weights and what is known of it.

    `changed` are the constructor arguments that the weights corrected; `local_converter` and `degradation`
    are those of its training, None where unknown.
    """

    name: str
    network: Network
    source: str
    changed: dict[str, Any] = field(default_factory=dict)
    local_converter: tuple[int, int] | None = None
    degradation: dict[str, Any] | None = None


def from_weights(
    node: Mapping[str, Any], path: str, *, name: str, chosen: Collection[str] = (), scale: int | None = None
) -> Loaded:
    """The network of a configuration node with the weights in a file.

    What the weights tell of the arguments corrects those that the user did not choose. A network that
    enlarges takes the scale of the benchmark where neither speaks.
    """
    target = str(node["_target_"])
    arguments = {str(key): value for key, value in node.items() if key != "_target_"}
    if scale is not None and "scale" not in chosen and arguments.get("scale", 1) != 1:
        arguments["scale"] = scale
    cls = network_class(target)
    network, changed = network_from_weights(cls, arguments, path, chosen=chosen)
    return Loaded(name, network.eval(), str(path), changed)


def from_checkpoint(path: str) -> Loaded:
    """The network of a run folder (its best checkpoint) or of a checkpoint file; averaged weights if any."""
    source = locate(path)
    checkpoint = read_checkpoint(source.checkpoint)
    ours = checkpoint["restora"]
    size = (ours.get("evaluation") or {}).get("local_converter")
    return Loaded(
        name=str(ours.get("name") or source.checkpoint.stem),
        network=checkpoint_network(checkpoint, str(source.checkpoint)),
        source=str(source.checkpoint),
        local_converter=None if size is None else (int(size[0]), int(size[1])),
        degradation=ours.get("degradation") or None,
    )


def from_model_folder(path: str) -> Loaded:
    """The network of a model folder that `restora export` wrote."""
    description, network = load_model_folder(Path(path))
    return Loaded(
        name=description.name,
        network=network,
        source=str(path),
        local_converter=description.local_converter,
        degradation=description.degradation or None,
    )


def trained_range(degradation: Any, severity: str) -> tuple[float, float] | None:
    """The range of a benchmark's severity that a network was trained on, read off its degradation; None if
    unknown.

    `severity` is sigma (noise), quality (JPEG) or width (Gaussian blur); the first stage that has one counts.
    """
    classes = {
        "sigma": ("gaussian_noise", "sigma"),
        "quality": ("jpeg", "quality"),
        "width": ("gaussian_blur", "sigma"),
    }
    if severity not in classes:
        return None
    return _find_range(degradation, *classes[severity])


def _find_range(node: Any, name: str, argument: str) -> tuple[float, float] | None:
    if isinstance(node, Mapping):
        value = node.get(argument)
        if value is not None and part_of(node, "degradation") is find("degradation", name):
            low, high = (value, value) if isinstance(value, int | float) else value
            return float(low), float(high)
        node = list(node.values())
    if isinstance(node, list | tuple):
        found = (_find_range(part, name, argument) for part in node)
        return next((item for item in found if item is not None), None)
    return None
