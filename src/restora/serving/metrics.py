"""The server's metrics in the text format of Prometheus."""

import os
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

Sample = tuple[dict[str, str], float]


class Metrics:
    """Counts responses; all other metrics are read from their owners on request."""

    def __init__(self) -> None:
        self.started = time.time()
        self.answers: Counter[tuple[str, str, int]] = Counter()
        """by method, route and status"""


def text(families: Iterable[tuple[str, str, str, list[Sample]]]) -> str:
    """(name, kind, help, samples) of each metric -> the exposition format."""
    lines: list[str] = []
    for name, kind, what, samples in families:
        lines += [f"# HELP {name} {what}", f"# TYPE {name} {kind}"]
        lines += [f"{name}{_labels(labels)} {value:.10g}" for labels, value in samples]
    return "\n".join(lines) + "\n"


def _labels(labels: dict[str, str]) -> str:
    if not labels:
        return ""
    pairs = (f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return "{" + ",".join(pairs) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def resident_bytes() -> float:
    """Resident memory of the process; 0 if unknown."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
