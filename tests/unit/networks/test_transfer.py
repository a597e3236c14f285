"""Name patterns of a network's tensors."""

import pytest
import torch

from restora.networks.dncnn import DnCNN
from restora.networks.transfer import matching, transfer

NAMES = ["model.0.weight", "model.0.bias", *(f"model.{i}.weight" for i in range(2, 40)), "model.40.gain"]


@pytest.mark.parametrize(
    ("pattern", "there"),
    [
        ("tail", "model.0, model.2, model.3"),
        ("model.1.bias", "model.0, model.2, model.3"),
        ("model.0.gain", "model.0.weight, model.0.bias"),
        ("model.40.weight", "model.40.gain"),
        ("model.40.gain.x", "model.40.gain"),
    ],
)
def test_a_pattern_that_fits_nothing_is_answered_with_what_is_there(pattern: str, there: str) -> None:
    with pytest.raises(ValueError, match=r"init.skip: .* names: ") as error:
        matching(NAMES, [pattern], where="init.skip")
    listed = str(error.value).partition("names: ")[2]
    assert listed.startswith(there)
    assert len(listed) < 150


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.qkv", ["a.0.qkv.weight", "a.1.qkv.weight"]),
        ("a.?.proj", ["a.0.proj.weight"]),
        ("a.0", ["a.0.qkv.weight", "a.0.proj.weight"]),
        ("*.weight", ["a.0.qkv.weight", "a.0.proj.weight", "a.1.qkv.weight", "a.10.weight"]),
    ],
)
def test_a_pattern_stands_for_what_it_matches_and_all_below(pattern: str, names: list[str]) -> None:
    there = ["a.0.qkv.weight", "a.0.proj.weight", "a.1.qkv.weight", "a.10.weight", "qkv.bias"]
    assert matching(there, [pattern], where="family.freeze") == set(names)


def test_names_of_several_roots_and_of_one_tensor() -> None:
    for names, there in ((["body.0.weight", "tail.bias"], "body, tail"), (["weight"], "weight")):
        with pytest.raises(ValueError, match=f"names: {there}$"):
            matching(names, ["head"], where="family.freeze")


def test_what_fits_by_name_and_shape_is_taken_and_the_rest_is_named() -> None:
    network, other = (DnCNN(in_channels=n, depth=4, channels=8, batch_norm=False) for n in (3, 1))
    state = dict(other.state_dict()) | {"more": torch.zeros(1)}
    del state["model.2.bias"]
    found = transfer(network, state, skip=["model.4"])
    assert set(found.taken) == {"model.0.bias", "model.2.weight"}
    assert set(found.other_shape) == {"model.0.weight", "model.6.weight", "model.6.bias"}
    assert found.other_shape["model.0.weight"] == ((8, 1, 3, 3), (8, 3, 3, 3))
    assert (found.missing, found.unused) == (["model.2.bias"], ["more"])
    assert found.skipped == ["model.4.weight", "model.4.bias"]
    assert found.total == len(network.state_dict())
