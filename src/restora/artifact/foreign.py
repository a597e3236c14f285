"""Networks of other architectures than restora's, by the package spandrel (extra `restora[any]`).

Its descriptors give scale, channels, sizes and whether tiling is allowed. Tensors are read by restora's own
safe reader. The same package is used to check whether weights exported here open elsewhere.

Note: spandrel imports torchvision, whose import fails without its compiled operators (a CPU-only torch beside
a torchvision for CUDA). Nothing here uses them: they are declared, so that the import succeeds.

Legend: B photos, C channels, K condition channels, H height, W width, s scale.
"""

import importlib.util
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from restora.artifact.parity import Sample
from restora.networks.base import Network, pad_bottom_right
from restora.networks.weights import WeightsError, prefixes, read_tensors

NAME = "spandrel"
"""The name of such a network in a model folder; the architecture is in its weights."""
INSTALL = "pip install 'restora[any]'"
SAME = 2e-6
"""Largest difference on the [0,1] scale up to which another program's picture counts as the same."""
_TASKS = {"SR": "super_resolution", "FaceSR": "super_resolution", "Inpainting": "inpaint"}
_operators = torch.library.Library("torchvision", "FRAGMENT")


class ForeignNetwork(Network):
    """A network of spandrel, from its descriptor; networks for inpainting take a mask besides the photo.

    The mask is 1 where a pixel is known, as everywhere here; spandrel's are 1 where it is lost.
    """

    tasks: ClassVar[tuple[str, ...]] = ()

    def __init__(self, descriptor: Any) -> None:
        super().__init__()
        self.model = descriptor.model.eval()
        self.architecture = str(descriptor.architecture.id)
        self.task = _TASKS.get(descriptor.purpose, "unknown")
        self.tags = [str(tag) for tag in descriptor.tags]
        self.in_channels, self.out_channels = descriptor.input_channels, descriptor.output_channels
        self.scale = descriptor.scale
        self.condition_channels = 1 if descriptor.purpose == "Inpainting" else 0
        self.size_multiple = descriptor.size_requirements.multiple_of
        self.whole_photo = descriptor.tiling.name != "SUPPORTED"  # type: ignore[misc]
        self._sizes = descriptor.size_requirements
        self._call = descriptor._call_fn  # the descriptor's own call clamps, and cannot be traced

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        self._check(x, condition)
        height, width = x.shape[-2:]
        right, below = self._sizes.get_padding(width, height)
        if below or right:
            x = pad_bottom_right(x, below, right, "reflect")
            if condition is not None:
                condition = pad_bottom_right(condition, below, right, "replicate")
        return self.restore(x, condition)[..., : height * self.scale, : width * self.scale]

    def restore(self, x: Tensor, condition: Tensor | None) -> Tensor:
        if self.condition_channels == 0:
            y: Tensor = self._call(self.model, x)
        else:
            assert condition is not None
            y = self._call(self.model, x, 1 - condition)
        return y

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Under the architecture's own names."""
        return self.model.state_dict(*args, **kwargs)

    def described(self) -> str:
        """The known properties of the network, in words."""
        tags = f" ({', '.join(self.tags)})" if self.tags else ""
        enlarges = f", enlarges {self.scale} times" if self.scale > 1 else ""
        whole = ", depends on the whole photo: tiles change the result" if self.whole_photo else ""
        known = f"{self.in_channels} to {self.out_channels} channels{enlarges}{whole}"
        return f"{self.architecture}{tags} by spandrel: {known}; its noise level and training are unknown"


def installed() -> bool:
    return importlib.util.find_spec("spandrel") is not None


def version() -> str:
    from importlib import metadata

    return f"spandrel {metadata.version('spandrel')}"


def foreign_network(tensors: Mapping[str, Tensor], where: str) -> ForeignNetwork:
    """The network that spandrel finds in the tensors of a file, under any prefix of their names.

    Raises WeightsError where it finds none, or one that takes no photos.
    """
    spandrel = _spandrel()
    problem = ""
    # averaged weights first, then the shortest prefix
    for prefix in sorted(prefixes(tensors), key=lambda each: ("ema" not in each.lower(), len(each))):
        state = {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
        try:
            with warnings.catch_warnings(action="ignore"):
                descriptor = spandrel.MAIN_REGISTRY.load(state)
        except spandrel.UnsupportedModelError:
            continue
        except Exception as error:  # weights that only look like one of its architectures
            problem = f": {str(error).strip().partition(chr(10))[0]:.160}"
            continue
        if descriptor.input_channels not in (1, 3):
            raise WeightsError(
                f"{where} holds {descriptor.architecture.id} for {descriptor.input_channels} channels; "
                "photos have 1 or 3"
            )
        return ForeignNetwork(descriptor).requires_grad_(False)
    raise WeightsError(f"neither restora nor {version()} knows the weights in {where}{problem}")


def opened_elsewhere(
    weights: Path, reference: Sequence[Tensor], samples: Sequence[Sample], *, converted: bool = False
) -> dict[str, Any]:
    """How spandrel runs exported weights, compared with the outputs `reference` for `samples`; plain values.

    `same` is None if it was not tried; `words` give the reason, or the difference of the pictures.
    `converted`: the reference has the test-time local converter.
    """
    if not installed():
        return {"same": None, "words": f"not tried: spandrel is not installed ({INSTALL})"}
    by = version()
    try:
        network = foreign_network(read_tensors(weights), weights.name)
        if any(sample.condition is not None for sample in samples) and not network.condition_channels:
            reads = f"{by} reads {network.architecture}, but passes it no noise level or mask"
            return {"same": False, "words": f"{reads}: use restora or another format"}
        largest = max(
            _difference(network, sample, expected)
            for sample, expected in zip(samples, reference, strict=True)
        )
    except WeightsError:
        return {"same": False, "words": f"{by} does not know these weights: use restora or another format"}
    except Exception as error:  # taken for another architecture
        first = str(error).strip().partition("\n")[0]
        return {"same": False, "words": f"{by} fails on these weights ({first:.100}): use another format"}
    found = {"architecture": network.architecture, "max_difference": largest, "same": largest <= SAME}
    if found["same"]:
        return found | {"words": f"{by} reads {network.architecture}: the same output, to {largest:.1e}"}
    words = f"{by} reads {network.architecture} but its output differs by up to {largest:.1e}"
    if converted:
        words += " (it has no test-time local converter)"
    return found | {"words": f"{words}: use restora or another format"}


def _difference(network: ForeignNetwork, sample: Sample, expected: Tensor) -> float:
    x = sample.x
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):
        y = network(x, sample.condition if network.condition_channels else None)
    if y.shape != expected.shape:
        raise ValueError(f"output of shape {tuple(y.shape)} for an input of {tuple(x.shape)}")
    return float((y.clamp(0, 1) - expected.clamp(0, 1)).abs().max())


def _spandrel() -> Any:
    """The package, with its further architectures where they are installed."""
    if not installed():
        raise WeightsError(f"spandrel is not installed: {INSTALL}")
    _declare_operators()
    import spandrel

    if importlib.util.find_spec("spandrel_extra_arches") is not None:
        from spandrel_extra_arches import install

        install(ignore_duplicates=True)
    return spandrel


def _declare_operators() -> None:
    """Declares the operators that torchvision's import needs: by its library if that fits, else by name."""
    found = importlib.util.find_spec("torchvision")
    if "torchvision" in sys.modules or found is None or found.origin is None:
        return
    if hasattr(torch.ops.torchvision, "nms"):
        return
    try:
        torch.ops.load_library(next(Path(found.origin).parent.glob("_C*.so")))
    except (OSError, StopIteration):
        for signature in (
            "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
            "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        ):
            _operators.define(signature)
