"""The tables of published counts in docs/networks.md: what the code makes, and what the papers print."""

import re
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from restora.config import build as build_node
from restora.config import parts
from restora.networks.base import Network
from restora.networks.cost import count_macs, count_parameters

DOCS = (Path(__file__).resolve().parents[3] / "docs" / "networks.md").read_text(encoding="utf-8")
PUBLISHED = re.findall(
    r"^\| `(\w+)` \| (?:`(.*?)`)? \| ([\d,]+) \| ([\d,.]+[KM]?) \| .+ \|$", DOCS, re.MULTILINE
)
PUBLISHED_MACS = re.findall(
    r"^\| `(\w+)` \| (?:`(.*?)`)? \| (\d+)×(\d+) \| ([\d.]+)G \| ([\d.]+)G \| .+ \|$", DOCS, re.MULTILINE
)

NODES = parts("network")


def from_docs(name: str, arguments: str) -> Network:
    config = OmegaConf.merge(NODES[name], OmegaConf.from_dotlist(arguments.split()))
    with torch.device("meta"):
        return build_node(config, "network")


def test_the_tables_of_published_counts_are_read() -> None:
    assert len(PUBLISHED) >= 30
    assert len(PUBLISHED_MACS) >= 12


@pytest.mark.parametrize(("name", "arguments", "ours", "published"), PUBLISHED)
@pytest.mark.slow
def test_published_parameter_counts(name: str, arguments: str, ours: str, published: str) -> None:
    parameters = count_parameters(from_docs(name, arguments))
    assert f"{parameters:,}" == ours
    digits, unit = re.fullmatch(r"([\d,.]+)([KM]?)", published).groups()
    decimals = len(digits.partition(".")[2])
    size = {"K": 1e3, "M": 1e6, "": 1}[unit]
    # 0.6 of the last digit: some counts hold the 24 frozen numbers of the mean colours
    assert abs(parameters - float(digits.replace(",", "")) * size) <= 0.6 * size / 10**decimals


@pytest.mark.parametrize(("name", "arguments", "height", "width", "ours", "published"), PUBLISHED_MACS)
@pytest.mark.slow
def test_published_multiply_accumulates(
    name: str, arguments: str, height: str, width: str, ours: str, published: str
) -> None:
    macs = count_macs(from_docs(name, arguments), height=int(height), width=int(width))
    assert macs is not None
    decimals = len(ours.partition(".")[2])
    assert f"{macs / 1e9:.{decimals}f}" == ours
    assert ours == published
