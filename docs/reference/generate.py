"""Fills the generated places of the reference when the site is built: the commands from their own `--help`,
the configuration groups from the files in conf/."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
GROUPS_OF_NAMES = ("network", "degradation", "benchmark")
"""Groups with too many files to print: their first file stands for the keys, the others are named."""


def commands() -> str:
    """A section per command, with its help as it is at 80 columns."""
    sys.path.insert(0, str(ROOT / "src"))
    from restora.cli import COMMANDS

    environment = os.environ | {"COLUMNS": "80", "PYTHONPATH": str(ROOT / "src")}
    sections = []
    for name, (_, what) in COMMANDS.items():
        words = [sys.executable, "-m", "restora", name, "--help"]
        done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT, env=environment)
        sections.append(f"## {name}\n\n{what[0].upper()}{what[1:]}.\n\n```text\n{done.stdout.strip()}\n```")
    return "\n\n".join(sections)


def configuration(conf: Path) -> str:
    """A section per group, with its files."""
    sections = [_section("train", [conf / "train.yaml"])]
    for group in sorted({path.parent for path in conf.rglob("*.yaml")} - {conf}):
        sections.append(_section(str(group.relative_to(conf)), sorted(group.glob("*.yaml"))))
    return "\n\n".join(sections)


def _section(name: str, files: list[Path]) -> str:
    sys.path.insert(0, str(ROOT / "src"))
    from restora.config import options

    served = [option for option in options(name) if "/" not in option] or [path.stem for path in files]
    names = "  ".join(f"`{option}`" for option in served)
    shown = files[:1] if name in GROUPS_OF_NAMES else files
    parts = [f"## {name}", names]
    for path in shown:
        parts.append(f'```yaml title="{path.parent.name}/{path.name}"\n{path.read_text().strip()}\n```')
    return "\n\n".join(parts)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """MkDocs calls it for each page."""
    if "<!-- generated: commands -->" in markdown:
        markdown = markdown.replace("<!-- generated: commands -->", commands())
    if "<!-- generated: configuration -->" in markdown:
        markdown = markdown.replace("<!-- generated: configuration -->", configuration(ROOT / "conf"))
    return markdown
