"""NAFNet and its attention variant: PSNR as the loss, and local statistics at test time.

What differs from the base recipe: the loss is the negative PSNR of each photo, the optimiser is AdamW under a
cosine schedule, and photos are evaluated with the test-time local converter, because the pooled statistics of
a whole photo differ from those of the training patches.
"""

from typing import Any

from restora.families.base import Family
from restora.networks.base import Network
from restora.networks.layers.local_converter import convert
from restora.registry import register


@register("family", "nafnet")
class NAFNetFamily(Family):
    """Recipe of NAFNet (Chen et al., "Simple Baselines for Image Restoration", ECCV 2022).

    `local_converter` is the training patch (height, width) whose statistics pooling should see at test time
    (Chu et al., "Improving Image Restoration by Revisiting Global Information Aggregation", ECCV 2022); null
    pools over the whole photo.
    """

    name = "nafnet"

    def __init__(self, *, local_converter: tuple[int, int] | None = None, **recipe: Any) -> None:
        super().__init__(**recipe)
        self.local_converter = None if local_converter is None else (local_converter[0], local_converter[1])

    def evaluation_network(self) -> Network:
        network = super().evaluation_network()
        if self.local_converter is None:
            return network
        return convert(network, train_size=self.local_converter).eval()
