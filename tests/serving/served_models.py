"""Small model folders for the tests of the server: most of them leave a photo as it is."""

from pathlib import Path
from typing import Any

import torch

from restora.artifact.model_folder import ModelDescription, save_weights, write_description
from restora.networks.base import Network
from restora.networks.dncnn import DnCNN, FDnCNN
from restora.networks.srresnet import MSRResNet


def put(folder: Path, network: Network, name: str, arguments: dict[str, Any], task: str, **more: Any) -> Path:
    """A model folder of the network as it is."""
    folder.mkdir(parents=True)
    save_weights(network, folder)
    description = ModelDescription(
        name=folder.name,
        task=task,
        family="residual_cnn",
        network={"name": name, "arguments": arguments},
        scale=network.scale,
        in_channels=network.in_channels,
        out_channels=network.out_channels,
        condition_channels=network.condition_channels,
        size_multiple=network.size_multiple,
        evaluation={"local_converter": None},
        **more,
    )
    write_description(folder, description)
    return folder


def zeroed(network: Network) -> Network:
    for parameter in network.parameters():
        parameter.data.zero_()
    return network


def identity(folder: Path, *, channels: int = 3, depth: int = 3, width: int = 4) -> Path:
    """A denoiser that gives the photo back; deeper and wider ones take longer."""
    arguments = {"in_channels": channels, "depth": depth, "channels": width, "batch_norm": False}
    return put(folder, zeroed(DnCNN(**arguments)), "dncnn", arguments, "denoise")


def upscaler(folder: Path, *, scale: int = 2) -> Path:
    """Bilinear enlargement."""
    arguments = {"scale": scale, "in_channels": 3, "channels": 4, "blocks": 1}
    network = zeroed(MSRResNet(**arguments))
    return put(folder, network, "msrresnet", arguments, "super_resolution")


def filler(folder: Path, *, level: float = 0.25) -> Path:
    """An inpainting model that paints everything in one grey."""
    arguments = {"in_channels": 3, "depth": 3, "channels": 4}
    network = zeroed(FDnCNN(**arguments))
    last = [layer for layer in network.modules() if isinstance(layer, torch.nn.Conv2d)][-1]
    assert last.bias is not None
    last.bias.data.fill_(level)
    return put(
        folder,
        network,
        "fdncnn",
        arguments,
        "inpaint",
        degradation={"_target_": "brush_strokes", "fill": 0.5},
    )


def conditioned(folder: Path) -> Path:
    """A denoiser that is conditioned on the noise level, and was trained at many."""
    arguments = {"in_channels": 3, "depth": 3, "channels": 4}
    degradation = {"_target_": "gaussian_noise", "sigma": [0, 50]}
    return put(folder, zeroed(FDnCNN(**arguments)), "fdncnn", arguments, "denoise", degradation=degradation)
