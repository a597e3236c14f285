"""Every option of `data` builds a data module, spells out all its arguments, and says what is missing."""

import inspect
from pathlib import Path

import pytest

from restora.config import build as build_node
from restora.config import compose, options
from restora.data.module import PhotoData
from restora.degradations.identity import Identity
from restora.photos.errors import DataError

NAMES = [name for name in options("data") if name != "mixture"]  # which waits for its parts


def build(name: str, tmp_path: Path, *overrides: str) -> PhotoData:
    config = compose("prepare", [f"data={name}", f"data_dir={tmp_path}", "seed=7", *overrides])
    data = build_node(config.data, "data", degradation=Identity())
    assert isinstance(data, PhotoData)
    return data


@pytest.mark.parametrize("name", NAMES)
def test_it_builds_without_touching_the_disk(name: str, tmp_path: Path) -> None:
    data = build(name, tmp_path)
    assert data.seed == 7
    assert data.store_dir == tmp_path / "packed"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_it_spells_out_every_argument(name: str, tmp_path: Path) -> None:
    config = compose("prepare", [f"data={name}", f"data_dir={tmp_path}"]).data
    made = build(name, tmp_path)
    assert set(config) - {"_target_"} == set(inspect.signature(type(made)).parameters) - {"degradation"}
    sources = [(config, made)] if "source" in config else []
    sources += [(config.parts[key], member) for key, member in getattr(made, "members", {}).items()]
    for node, data in sources:
        assert set(node.source) - {"_target_"} == set(inspect.signature(type(data.source)).parameters)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "sample"])
def test_it_says_how_to_get_what_is_missing(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"restora prepare data=|set data\.source\.root="):
        build(name, tmp_path).source.check()


def test_albumentations_transforms_come_from_the_command_line(tmp_path: Path) -> None:
    albumentations = pytest.importorskip("albumentations")
    chosen = "data.transforms=[{_target_: albumentations.HueSaturationValue, p: 0.25}]"
    (transform,) = build("sample", tmp_path, chosen).transforms
    assert isinstance(transform, albumentations.HueSaturationValue)
    assert transform.p == 0.25
