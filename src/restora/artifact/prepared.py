"""A network as it is used for inference."""

import copy

from restora.networks.base import Network
from restora.networks.layers.local_converter import convert


def prepare_network(network: Network, local_converter: tuple[int, int] | None) -> Network:
    """A copy of `network` for inference: converted, batch norm folded, frozen, in evaluation mode."""
    if local_converter is None:
        network = copy.deepcopy(network)
    else:
        network = convert(network, train_size=local_converter)
    network.eval()
    fold = getattr(network, "fold_batch_norm", None)
    return (network if fold is None else fold()).requires_grad_(False)
