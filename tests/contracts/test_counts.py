"""Whole numbers of networks and discriminators are counts: nonsense is refused by its key, before a step."""

from contextlib import suppress

import pytest
import torch

from restora.config import build, parts
from restora.networks.base import check_weights

NODES = {
    (kind, node["_target_"]): node for kind in ("network", "discriminator") for node in parts(kind).values()
}
COUNTS = [
    (kind, name, key)
    for (kind, name), node in NODES.items()
    for key, value in node.items()
    if type(value) is int or (isinstance(value, list) and value and type(value[0]) is int)
]


@pytest.mark.parametrize(("kind", "name", "key"), COUNTS)
def test_a_negative_count_is_refused_by_its_key(kind: str, name: str, key: str) -> None:
    node = NODES[kind, name]
    value = [*node[key][:-1], -1] if isinstance(node[key], list) else -1
    with pytest.raises(ValueError, match=rf"{kind}\.{key}=.*-1\]?: expected 0 or more"):
        build(node | {key: value}, kind)


@pytest.mark.parametrize(("kind", "name", "key"), COUNTS)
def test_a_count_of_zero_makes_a_network_or_is_refused(kind: str, name: str, key: str) -> None:
    node = NODES[kind, name]
    value = [0] * len(node[key]) if isinstance(node[key], list) else 0
    with suppress(ValueError), torch.device("meta"):
        check_weights(build(node | {key: value}, kind))


def test_values_without_a_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"network\.rgb_range=0\.0: expected a number above 0"):
        build(NODES["network", "edsr"] | {"rgb_range": 0.0}, "network")
