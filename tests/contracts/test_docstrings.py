"""The first line of a docstring is its summary: one sentence that ends there."""

import ast
from collections.abc import Iterator
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[2] / "src" / "restora"
PARTS = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def summaries(path: Path) -> Iterator[tuple[str, str, str]]:
    """Where, the first line and the second of every public docstring of a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, PARTS) and not getattr(node, "name", "").startswith("_"):
            text = ast.get_docstring(node)
            if text:
                lines = [*text.splitlines(), ""]
                yield f"{path.relative_to(SOURCES)}:{node.body[0].lineno}", lines[0], lines[1]


def test_a_summary_is_a_sentence_on_one_line() -> None:
    found = [said for path in sorted(SOURCES.rglob("*.py")) for said in summaries(path)]
    assert len(found) > 500
    wrong = [f"{where}: {first}" for where, first, second in found if second or first[-1:] not in ".:?!"]
    assert wrong == [], "end the sentence on the first line, leave a blank one, say the rest below"
