"""The formats of a model folder besides its weights: their files, their engines, and their accepted losses.

A file is accepted if it loses no more than `loss` dB against the checkpoint on real photos; those that
compute in float32 must also keep the tolerance of the weights at every pixel. The accuracy of int8 depends on
the network: a file that loses more than half a decibel no longer counts as the trained model.

Note: nothing heavy is imported here; `writing.py` writes them.
"""

import importlib.util
from dataclasses import dataclass


@dataclass(frozen=True)
class Format:
    """One format.

    `files` are its names in the folder, the first the one to open; `packages` are needed to write it, `extra`
    installs them; `loss` is the largest accepted loss in dB, `exact` whether it computes in float32.
    """

    files: tuple[str, ...]
    engine: str
    packages: tuple[str, ...]
    extra: str
    loss: float = 0.01
    exact: bool = True

    @property
    def missing(self) -> list[str]:
        """The packages that are not installed."""
        return [name for name in self.packages if importlib.util.find_spec(name) is None]


_ONNX = ("onnx", "onnxscript", "onnxruntime")
FORMATS = {
    "onnx": Format(("model.onnx",), "onnxruntime", _ONNX, "onnx"),
    "onnx-fp16": Format(("model.fp16.onnx",), "onnxruntime", _ONNX, "onnx", loss=0.05, exact=False),
    "onnx-int8": Format(("model.int8.onnx",), "onnxruntime", _ONNX, "onnx", loss=0.5, exact=False),
    "pt2": Format(("model.pt2",), "torch.export", (), ""),
    "openvino": Format(("model.xml", "model.bin"), "openvino", (*_ONNX, "openvino"), "onnx,openvino"),
}
"""By the names that `--format` takes."""
FILES = tuple(name for made in FORMATS.values() for name in made.files)


def chosen(words: str) -> tuple[str, ...]:
    """The formats of a comma-separated list; `all` is every one, `safetensors` adds none.

    Raises ValueError for an unknown name.
    """
    names = [name.strip() for name in words.split(",") if name.strip()]
    unknown = [name for name in names if name not in (*FORMATS, "all", "safetensors")]
    if unknown or not names:
        raise ValueError(
            f"--format must be a list with commas of safetensors, {', '.join(FORMATS)} or all; got {words!r}"
        )
    return tuple(name for name in FORMATS if name in names or "all" in names)
