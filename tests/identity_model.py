"""Model folders whose output is their input, so that every difference is file handling."""

from pathlib import Path

import torch

from restora.artifact.model_folder import ModelDescription, save_weights, write_description
from restora.networks.dncnn import DnCNN
from restora.networks.srresnet import MSRResNet


def identity_model(folder: Path, *, scale: int = 1) -> Path:
    """With a scale, the network enlarges bilinearly."""
    if scale == 1:
        name, task = "dncnn", "denoise"
        arguments = {"in_channels": 3, "depth": 3, "channels": 4, "batch_norm": False}
        network = DnCNN(**arguments)
    else:
        name, task = "msrresnet", "super_resolution"
        arguments = {"scale": scale, "in_channels": 3, "channels": 4, "blocks": 1}
        network = MSRResNet(**arguments)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    folder.mkdir(parents=True)
    save_weights(network, folder)
    write_description(
        folder,
        ModelDescription(
            name="identity",
            task=task,
            family="residual_cnn",
            network={"name": name, "arguments": arguments},
            scale=scale,
            in_channels=3,
            out_channels=3,
            condition_channels=0,
            size_multiple=1,
            evaluation={"local_converter": None},
        ),
    )
    return folder
