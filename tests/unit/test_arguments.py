"""Arguments are held against signatures and annotations before anything is called."""

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
from torch import Tensor, nn

from restora import registry
from restora.arguments import WrongArgument, check_arguments, fits, wanted
from restora.config import build
from restora.networks.discriminators import Discriminator
from restora.objectives.base import Objective


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (3, int, True),
        (3, float, True),
        (True, int, False),
        (True, float, False),
        (1, bool, False),
        (3.0, int, False),
        (float("nan"), float, False),
        ([0.5, float("nan")], Sequence[float], False),
        (float("inf"), float, True),
        ("3", int, False),
        (None, int | None, True),
        (None, int, False),
        ("l1", Callable[[Any], Any], False),
        (nn.L1Loss(), Callable[[Any], Any], True),
        ("l1", nn.Module, False),
        ([1, 2.5], Sequence[float], True),
        ("12", Sequence[str], False),
        ([1, "x"], Sequence[int], False),
        ([1, 2], tuple[int, int], True),
        ([1], tuple[int, int], False),
        ([1, 2, 3], tuple[int, ...], True),
        (25, float | Sequence[float], True),
        ([0, 55], float | Sequence[float], True),
        ("high", float | Sequence[float], False),
        ("rgb", Literal["rgb", "gray"], True),
        ("rbg", Literal["rgb", "gray"], False),
        (True, Literal[1, 2], False),
        ({"a": 1}, Mapping[str, int], True),
        ({"a": "b"}, Mapping[str, int], False),
        ("here", str | Path, True),
        ("here", Path, True),
        ("anything", Any, True),
    ],
    ids=str,
)
def test_what_fits(value: Any, hint: Any, expected: bool) -> None:
    assert fits(value, hint) is expected


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (int, "a whole number"),
        (float | None, "a number or null"),
        (Literal["rgb", "gray"], "rgb or gray"),
        (Sequence[int], "a list of whole numbers"),
        (float | Sequence[float], "a number or a list of numbers"),
        (tuple[int, int] | None, "[a whole number, a whole number] or null"),
        (Mapping[str, float], "a mapping from names to numbers"),
        (Mapping[str, Any] | None, "a mapping from names to values or null"),
        (Callable[[Any], Any], "a part with its _target_"),
        (nn.Module, "a part (Module)"),
        (float | Tensor, "a number"),
        (nn.Sequential | float, "a number"),
    ],
    ids=str,
)
def test_what_is_wanted_in_words(hint: Any, words: str) -> None:
    assert wanted(hint) == words


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3))


def take(
    *, module: Discriminator | None = None, parts: Mapping[str, Objective] | None = None, size: int = 1
) -> None:
    pass


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"module": Plain()},
            "x.module=Plain: expected a part (Discriminator) or null; its class should inherit "
            "restora.networks.discriminators.Discriminator",
        ),
        (
            {"parts": {"mine": Plain()}},
            "x.parts={mine: Plain}: expected a mapping from names to Objectives or null; its class should "
            "inherit restora.objectives.base.Objective",
        ),
        ({"size": object()}, "x.size=object: expected a whole number"),
        ({"module": "vgg"}, "x.module=vgg: expected a part (Discriminator) or null"),
    ],
)
def test_a_part_of_another_class_is_named_by_its_class(values: dict[str, Any], message: str) -> None:
    """Its own text may be lines long, or an address."""
    with pytest.raises(WrongArgument) as raised:
        check_arguments(take, values, where="x", name="take")
    assert str(raised.value) == message


def of(name: str, **values: Any) -> dict[str, Any]:
    return {"_target_": name, **values}


@pytest.mark.parametrize(
    ("node", "kind", "said"),
    [
        (of("dncnn", dept=3), "network", ["network.dept=3", "did you mean depth?", "dncnn takes"]),
        (of("dncnn", depth="deep"), "network", ["network.depth=deep", "a whole number"]),
        (of("gaussian_noise", sigma="loud"), "degradation", ["degradation.sigma=loud", "a number or a list"]),
        (of("cosine", final=0.1, gamma=2), "schedule", ["schedule.gamma=2", "cosine takes final"]),
        (of("adam", _partial_=True, lr=1.0, momentum=1), "optimizer", ["optimizer.momentum=1"]),
        (of("adam", _partial_=True, lr="fast"), "optimizer", ["optimizer.lr=fast", "a number"]),
        (of("weighted_sum", losses=["l1"], weights=[1.0]), "loss", ["loss.losses=[l1]", "a list of Modules"]),
        (of("folder", root=3), "source", ["source.root=3"]),
        (
            of("chain", stages={"noise": of("gaussian_noise", sigma="x")}),
            "degradation",
            ["degradation.stages.noise.sigma=x"],
        ),
        (of("gaussian_noise"), "degradation", ["gaussian_noise needs a value for degradation.sigma"]),
    ],
    ids=str,
)
def test_key_value_and_what_is_wanted_are_named(node: Any, kind: str, said: list[str]) -> None:
    with pytest.raises(ValueError, match=".") as caught:
        build(node, kind)
    assert all(words in str(caught.value) for words in said), str(caught.value)


def test_keys_that_are_passed_on_are_those_of_the_parents() -> None:
    class Parent:
        def __init__(self, *, width: int) -> None: ...

    class Child(Parent):
        def __init__(self, *, depth: int, **options: Any) -> None:
            super().__init__(**options)

    class OfModule(nn.Module):
        def __init__(self, **options: Any) -> None: ...

    check_arguments(Child, {"depth": 1, "width": 2}, where="x", name="child")
    with pytest.raises(WrongArgument, match="x.height=3 is not an argument of child"):
        check_arguments(Child, {"depth": 1, "width": 2, "height": 3}, where="x", name="child")
    with pytest.raises(WrongArgument, match="x.width=w: expected a whole number"):
        check_arguments(Child, {"depth": 1, "width": "w"}, where="x", name="child")
    with pytest.raises(WrongArgument, match="is not an argument"):
        check_arguments(OfModule, {"dim": 1}, where="x", name="m")


def test_a_file_is_held_against_names_alone() -> None:
    """What was stored before annotations were looked at goes on being read."""
    check_arguments(nn.Dropout, {"p": 1, "inplace": 0}, where="x", name="dropout", types=False)
    with pytest.raises(WrongArgument, match="inplace=0: expected true or false"):
        check_arguments(nn.Dropout, {"p": 1, "inplace": 0}, where="x", name="dropout")


@pytest.mark.parametrize("kind", sorted(registry.PACKAGES))
def test_annotations_of_our_own_parts_can_be_read(kind: str) -> None:
    for name, cls in registry.classes(kind).items():
        if not cls.__module__.startswith("restora."):
            continue
        hints = typing.get_type_hints(cls.__init__)
        open_ended = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        for parameter in inspect.signature(cls).parameters.values():
            assert parameter.name in hints or parameter.kind in open_ended, f"{name}.{parameter.name}"
