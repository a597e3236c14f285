"""DnCNN, a plain stack of convolutions that predicts the residual of the photo, and FDnCNN.

K. Zhang, W. Zuo, Y. Chen, D. Meng, L. Zhang, "Beyond a Gaussian Denoiser: Residual Learning of Deep CNN for
Image Denoising", IEEE TIP 2017. Parameter names are those of KAIR's checkpoints (`model.0.weight`, ...),
whose batch norms are folded into the convolutions: those load with `batch_norm=False`.

Legend: B samples, C channels of the photo, F features, H height, W width.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from restora.networks.base import Network
from restora.networks.layers.blocks import batch_norm_folded, conv3x3, convolution_names, he_initialise
from restora.registry import register

_EPS = 1e-4  # the authors'; the published running variances were taken with it


class PlainStack(Network):
    """conv-relu, (depth - 2) x conv-(norm)-relu, conv, numbered as one sequence `model`."""

    def __init__(
        self, *, inputs: int, outputs: int, depth: int, channels: int, batch_norm: bool, bias: bool
    ) -> None:
        super().__init__()
        if depth < 3:
            raise ValueError(f"network.depth must be 3 or more (it counts all convolutions), got {depth}")
        layers: list[nn.Module] = [conv3x3(inputs, channels), nn.ReLU(inplace=True)]
        for _ in range(depth - 2):
            inner = conv3x3(channels, channels, bias=bias)
            layers.append(inner)
            if batch_norm:
                if inner.bias is not None:
                    inner.bias.requires_grad_(False)
                layers.append(nn.BatchNorm2d(channels, eps=_EPS))
            layers.append(nn.ReLU(inplace=True))
        layers.append(conv3x3(channels, outputs))
        self.model = nn.Sequential(*layers)
        he_initialise(self)


@register("network", "dncnn")
class DnCNN(PlainStack):
    """restored = x - model(x).

    It suits any degradation that keeps the size: noise, JPEG, an upsampled low-resolution photo.

    The paper's variants: S (one noise level) has depth 17; B (blind, 0 to 55) and 3 (noise, JPEG and x2 to x4
    together) have depth 20; the colour variants have 3 channels. `bias` is that of the convolutions before a
    batch norm, which cancels it, so it is not trained: KAIR has it, the paper's parameter count (556K) does
    not.
    """

    tasks: ClassVar[tuple[str, ...]] = ("denoise", "jpeg", "super_resolution", "deblur")

    def __init__(
        self,
        *,
        in_channels: int = 1,
        depth: int = 17,
        channels: int = 64,
        batch_norm: bool = True,
        bias: bool = True,
    ) -> None:
        super().__init__(
            inputs=in_channels,
            outputs=in_channels,
            depth=depth,
            channels=channels,
            batch_norm=batch_norm,
            bias=bias,
        )
        self.in_channels = self.out_channels = in_channels

    def restore(self, x: Tensor, condition: Tensor | None) -> Tensor:  # noqa: ARG002
        return x - self.model(x)

    def fold_batch_norm(self) -> "DnCNN":
        """An equal network without batch norm, for inference: half the layers, 2.1 times as fast on a CPU."""
        convolutions = [module for module in self.model if isinstance(module, nn.Conv2d)]
        norms = [module for module in self.model if isinstance(module, nn.BatchNorm2d)]
        if norms:
            inner = zip(convolutions[1:-1], norms, strict=True)
            convolutions[1:-1] = [batch_norm_folded(convolution, norm) for convolution, norm in inner]
        network = DnCNN(
            in_channels=self.in_channels,
            depth=len(convolutions),
            channels=convolutions[0].out_channels,
            batch_norm=False,
        ).to(convolutions[0].weight)
        targets = [module for module in network.model if isinstance(module, nn.Conv2d)]
        for target, convolution in zip(targets, convolutions, strict=True):
            target.load_state_dict(convolution.state_dict(), strict=convolution.bias is not None)
        return network.train(self.training)

    def as_published(self, arguments: Mapping[str, Any]) -> tuple[Network, dict[str, Any]]:
        """With KAIR's biases before batch norms, which are 0."""
        if arguments.get("bias", True):
            return self, dict(arguments)
        changed = {**arguments, "bias": True}
        equal = DnCNN(**changed)
        state = equal.state_dict() | self.state_dict()
        missing = state.keys() - self.state_dict().keys()
        equal.load_state_dict({n: value.zero_() if n in missing else value for n, value in state.items()})
        return equal.train(self.training), changed

    @classmethod
    def infer_arguments(cls, state: Mapping[str, Tensor]) -> dict[str, int | bool] | None:
        """The constructor's arguments, inferred from a state dict of this architecture; else None."""
        return _infer(state, condition_channels=0)


@register("network", "fdncnn")
class FDnCNN(PlainStack):
    """restored = model(x, noise-level map).

    No residual learning, no batch norm (KAIR's flexible DnCNN, depth 20).

    `condition` is (B,1,H,W): sigma/255 at every pixel, as FFDNet defines it (Zhang et al., TIP 2018, section
    III.B).
    """

    tasks: ClassVar[tuple[str, ...]] = ("denoise",)
    condition_channels = 1

    def __init__(self, *, in_channels: int = 1, depth: int = 20, channels: int = 64) -> None:
        super().__init__(
            inputs=in_channels + 1,
            outputs=in_channels,
            depth=depth,
            channels=channels,
            batch_norm=False,
            bias=True,
        )
        self.in_channels = self.out_channels = in_channels

    def restore(self, x: Tensor, condition: Tensor | None) -> Tensor:
        assert condition is not None
        return self.model(torch.cat((x, condition.to(x.dtype)), dim=1))

    @classmethod
    def infer_arguments(cls, state: Mapping[str, Tensor]) -> dict[str, int | bool] | None:
        """The constructor's arguments, inferred from a state dict of this architecture; else None."""
        found = _infer(state, condition_channels=1)
        if found is None or found.pop("batch_norm"):
            return None
        found.pop("bias")
        return found


def _infer(state: Mapping[str, Tensor], *, condition_channels: int) -> dict[str, int | bool] | None:
    names = convolution_names(state, "model")
    if len(names) < 3 or names[0] != "model.0.weight":
        return None
    first, last = state[names[0]], state[names[-1]]
    if first.shape[1] != last.shape[0] + condition_channels:
        return None
    return {
        "in_channels": last.shape[0],
        "depth": len(names),
        "channels": first.shape[0],
        "batch_norm": any(name.endswith(".running_mean") for name in state),
        "bias": names[1].replace("weight", "bias") in state,
    }
