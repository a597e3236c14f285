"""Compiles the Triton programs for cards that are not here, at the sizes of NAFNet-32 and Restormer.

    pip install triton
    PYTHONPATH=src python tests/kernels_compile.py [80 90 100]

Needs no GPU: Triton brings NVIDIA's assembler. A line for each program, dtype and card says registers, bytes
of stack (what registers spill to) and of shared memory; what does not compile raises. What the programs
compute is compared by Triton's interpreter (tests/unit/networks/test_kernels.py).
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from restora.kernels import functions, programs, random_numbers

TYPES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16", torch.int64: "i64"}
DUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
ALIGNED = 16
seen: set[tuple[Any, ...]] = set()


class Compiled:
    """In the place of a program: compiles it for what it is launched with, and launches nothing."""

    def __init__(self, program: Any, card: int) -> None:
        self.program, self.card = program, card

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        return self.launch

    def launch(self, *given: Any, **fixed: Any) -> None:
        names = self.program.arg_names
        signature = {name: _type(value) for name, value in zip(names, given, strict=False)}
        signature |= dict.fromkeys(fixed, "constexpr")
        signature = {name: signature[name] for name in names}
        aligned = [["tt.divisibility", ALIGNED]]
        attributes = {(at,): aligned for at, kind in enumerate(signature.values()) if kind[0] == "*"}
        key = (self.program.__name__, self.card, *signature.values(), *fixed.values())
        if key in seen:
            return
        seen.add(key)
        source = ASTSource(self.program, signature, constexprs=fixed, attrs=attributes)
        started = time.monotonic()
        made = triton.compile(source, target=GPUTarget("cuda", self.card, 32))
        taken = time.monotonic() - started
        kinds = {kind for kind in signature.values() if kind[0] == "*"}
        sizes = " ".join(f"{name}={value}" for name, value in fixed.items() if name != "PRECISION")
        what = f"sm_{self.card} {self.program.__name__} {'/'.join(sorted(kinds))} {sizes}"
        print(f"{what}: {_used(made)} [{taken:.0f} s]", flush=True)


def _type(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"*{TYPES[value.dtype]}"
    if isinstance(value, float):
        return "fp32"
    return "i32" if -(2**31) <= value < 2**31 else "i64"


def _used(made: Any) -> str:
    """Registers, bytes of the stack and of shared memory."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        said = subprocess.run(
            [DUMP, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    found = dict(part.split(":")[:2] for part in said.split() if part.count(":") == 1)
    return f"{found['REG']} registers, {found['STACK']} bytes of stack, {made.metadata.shared} bytes shared"


def launch_all(dtype: torch.dtype, *, most: bool) -> None:
    """Every program, forward and backward, at the least and, where wanted, the most channels of both."""
    for channels in (32, 512)[: 1 + most]:  # NAFNet-32
        x, y = (_numbers(dtype, 1, 4, 4, c) for c in (channels, 2 * channels))
        gain, bias, wide = (_numbers(dtype, c) for c in (channels, channels, 2 * channels))
        weight, taps = _numbers(dtype, 2 * channels, channels), _numbers(dtype, 2 * channels, 1, 3, 3)
        square = _numbers(dtype, channels, channels)
        _backward(functions.norm_linear(x, gain, bias, weight, wide, 1e-6))
        _backward(functions.depthwise_gate(y, taps, wide)[0])
        _backward(functions.scaled_linear(x, x, _numbers(dtype, 1, channels), square, bias))
        _backward(functions.gated_linear(x, y, square, bias))
    for channels in (48, 384)[: 1 + most]:  # Restormer
        x, weight = _numbers(dtype, 1, 4, 4, channels), _numbers(dtype, 3 * channels, channels)
        hidden = -(-int(2.66 * channels) // 16) * 16  # filled up, as the network does
        taps = _numbers(dtype, 2 * hidden, 1, 3, 3)
        _backward(
            functions.norm_linear(x, _numbers(dtype, channels), None, weight, None, 1e-5, centred=False)
        )
        _backward(functions.depthwise_gelu_gate(_numbers(dtype, 1, 4, 4, 2 * hidden), taps, None))


def _numbers(dtype: torch.dtype, *shape: int) -> Tensor:
    return torch.zeros(*shape, dtype=dtype, requires_grad=True)


def _backward(y: Tensor) -> None:
    y.float().sum().backward()


def main() -> None:
    kept = {
        name: value
        for name, value in vars(programs).items()
        if hasattr(value, "arg_names") and not name.startswith("_")
    }
    drawn, cdiv = random_numbers._program()
    for card in [int(word) for word in sys.argv[1:]] or [80, 90]:
        for name, program in kept.items():
            setattr(programs, name, Compiled(program, card))
        for dtype, precision in ((torch.bfloat16, "ieee"), (torch.float32, "tf32")):
            functions._precision = lambda _, precision=precision: precision
            launch_all(dtype, most=dtype == torch.bfloat16)
        draw = Compiled(drawn, card)
        random_numbers._program = lambda draw=draw: (draw, cdiv)
        for kind in random_numbers._KINDS:
            random_numbers.draw(torch.zeros(3, dtype=torch.int64), 5, kind, 100)


if __name__ == "__main__":
    main()
