"""Name patterns of a network's tensors."""

import pytest

from restora.networks.transfer import matching

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
def test_a_pattern_that_fits_nothing_is_told_what_is_there(pattern: str, there: str) -> None:
    with pytest.raises(ValueError, match=r"init.skip: .* names: ") as error:
        matching(NAMES, [pattern], where="init.skip")
    listed = str(error.value).partition("names: ")[2]
    assert listed.startswith(there)
    assert len(listed) < 150


def test_names_of_several_roots_and_of_one_tensor() -> None:
    for names, there in ((["body.0.weight", "tail.bias"], "body, tail"), (["weight"], "weight")):
        with pytest.raises(ValueError, match=f"names: {there}$"):
            matching(names, ["head"], where="family.freeze")
