"""The lines of docs/serving.md do what they say."""

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from serving_fixtures import Served

from restora.apps.serve import parser


def blocks(repository: Path, language: str) -> list[str]:
    text = (repository / "docs" / "serving.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.S)


@pytest.fixture
def old(tmp_path: Path) -> np.ndarray:
    y, x = np.mgrid[:40, :60]
    pixels = np.stack([x * 4, y * 6, x + y], -1).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "old.jpg")
    return np.asarray(Image.open(tmp_path / "old.jpg"))


@pytest.mark.usefixtures("old")
def test_the_lines_for_curl(repository: Path, served: Served, tmp_path: Path, old: np.ndarray) -> None:
    if shutil.which("curl") is None:
        pytest.skip("no curl")
    script = "\n".join(block for block in blocks(repository, "sh") if "$URL" in block)
    done = subprocess.run(
        ["bash", "-euc", script],
        cwd=tmp_path,
        env={"URL": served.url, "PATH": "/usr/bin:/bin", "no_proxy": "*"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "event: done" in done.stdout
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "restored.png")), old)
    assert Image.open(tmp_path / "restored.jpg").format == "JPEG"


def test_the_client_in_python(repository: Path, served: Served, tmp_path: Path, old: np.ndarray) -> None:
    names: dict = {}
    (code,) = blocks(repository, "python")
    exec(code, names)
    result = tmp_path / "result.png"
    for wait in (600, 0):
        photo = (tmp_path / "old.jpg").read_bytes()
        result.write_bytes(names["restore"](served.url, photo, wait=wait, format="png"))
        np.testing.assert_array_equal(np.asarray(Image.open(result)), old)
    with pytest.raises(RuntimeError, match="not a photo"):
        names["restore"](served.url, b"this is a text")


def test_the_service_and_the_container_start_the_command_that_there_is(repository: Path) -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.read_string(blocks(repository, "ini")[0])
    words = unit["Service"]["ExecStart"].split()
    assert words[:2] == ["/opt/restora/bin/restora", "serve"]
    assert parser().parse_args(words[2:]).grace < float(unit["Service"]["TimeoutStopSec"])
    (container,) = blocks(repository, "dockerfile")
    command = re.findall(r'"([^"]*)"', container.splitlines()[-1])
    assert command[:2] == ["restora", "serve"]
    assert parser().parse_args(command[2:]).host == "0.0.0.0"
