"""Fills the generated places of the reference when the site is built.

Commands come from their own `--help`, configuration groups from the files in conf/, networks from what is
registered, experiments from their comments.
"""

import io
import os
import sys
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "src"))
GROUPS_OF_NAMES = ("network", "degradation", "benchmark")
"""Groups with too many files to print: their first file stands for the keys, the others are named."""


def commands() -> str:
    """A section per command, with its help as it is at 80 columns."""
    from restora.cli import COMMANDS, main

    os.environ["COLUMNS"] = "80"
    sections = []
    for name, (_, what) in COMMANDS.items():
        with redirect_stdout(io.StringIO()) as shown, suppress(SystemExit):
            main([name, "--help"])
        text = shown.getvalue().strip()
        assert text, f"restora {name} --help says nothing"
        sections.append(f"## {name}\n\n{what[0].upper()}{what[1:]}.\n\n```text\n{text}\n```")
    return "\n\n".join(sections)


def configuration(conf: Path) -> str:
    """A section per group, with its files."""
    sections = [_section("train", [conf / "train.yaml"])]
    for group in sorted({path.parent for path in conf.rglob("*.yaml")} - {conf}):
        sections.append(_section(str(group.relative_to(conf)), sorted(group.glob("*.yaml"))))
    return "\n\n".join(sections)


def _section(name: str, files: list[Path]) -> str:
    from restora.config import options

    served = [option for option in options(name) if "/" not in option] or [path.stem for path in files]
    names = "  ".join(f"`{option}`" for option in served)
    shown = files[:1] if name in GROUPS_OF_NAMES else files
    parts = [f"## {name}", names]
    for path in shown:
        parts.append(f'```yaml title="{path.parent.name}/{path.name}"\n{path.read_text().strip()}\n```')
    return "\n\n".join(parts)


def networks() -> str:
    """The table of the networks of the papers' sizes."""
    from restora.apps.networks import configurations, count, families, markdown

    nodes = configurations()
    trained_by = families(nodes)
    full = {name: node for name, node in nodes.items() if not name.endswith("_small")}
    return markdown([count(name, node, trained_by.get(node["_target_"], "")) for name, node in full.items()])


def experiments() -> str:
    """A section per folder of experiments: its question, and what each experiment is, needs and costs."""
    from restora.apps.experiments import Experiment
    from restora.apps.experiments import experiments as found

    folders: dict[str, list[Experiment]] = {}
    for item in found():
        folders.setdefault(item.name.partition("/")[0], []).append(item)
    sections = []
    for folder, items in folders.items():
        rows = [f"| `{item.name}` | {item.words} | {item.machine} | {item.cost} |" for item in items]
        table = ["| experiment | what | machine | cost |", "| --- | --- | --- | --- |", *rows]
        said = (ROOT / "experiments" / folder / "README.md").read_text(encoding="utf-8")
        sections.append(f"#{said.strip()}\n\n" + "\n".join(table))
    return "\n\n".join(sections)


GENERATED = {
    "commands": commands,
    "configuration": lambda: configuration(ROOT / "conf"),
    "networks": networks,
    "experiments": experiments,
}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """MkDocs calls it for each page."""
    for name, make in GENERATED.items():
        place = f"<!-- generated: {name} -->"
        if place in markdown:
            markdown = markdown.replace(place, make())
    return markdown
