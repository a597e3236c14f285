"""The first line of a run: degradation, network, objectives, length and batch."""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from restora import vocabulary
from restora.arguments import shown
from restora.composing.batch_rule import in_words

_SHOWN = 4
"""Number of arguments listed per part."""


def opening_line(config: DictConfig, network_name: str = "", *, decided: bool = False) -> str:
    """Describes a run in one line, from the configuration alone.

    With `decided`, its precision is what this machine has made of `auto`.
    """
    plain: Any = OmegaConf.to_container(config, resolve=True)
    network = network_name or _name(plain["network"])
    source, degraded = _photos(plain)
    learnt = " + ".join(_objective(name, node) for name, node in plain["objective"].items())
    notes = [_length(plain["trainer"]), _unreached(plain), in_words(config)]
    if decided:
        notes.append(f"{vocabulary.precision(plain['trainer']['precision'], 'cpu')} by precision=auto")
    return (
        f"{plain['task']}: {source} {degraded}; {network} learns {learnt}; {'; '.join(filter(None, notes))}"
    )


def _photos(plain: Mapping[str, Any]) -> tuple[str, str]:
    """The source of the photos and their degradation; for a mixture, those of each part."""
    if parts := plain["data"].get("parts"):
        each = [
            (_name(p["source"]), _name(p.get("degradation") or {"_target_": "identity"}))
            for p in parts.values()
        ]
        words = [name if by == "identity" else f"{name} degraded by {by}" for name, by in each]
        return " + ".join(words), "mixed"
    own = plain["degradation"]
    degraded = "degraded already" if _name(own) == "identity" else f"degraded by {_part(own)}"
    return _name(plain["data"]["source"]), degraded


def _objective(name: str, node: Mapping[str, Any]) -> str:
    loss = node.get("loss")
    return f"{name} {_name(loss)}" if isinstance(loss, Mapping) else name


def _part(node: Mapping[str, Any]) -> str:
    """A part with its arguments; a composition with the names of its stages."""
    stages = node.get("stages")
    if isinstance(stages, Mapping) and stages:
        return f"{_name(node)} of {', '.join(map(str, stages))}"
    values = [
        f"{key} {_span(value)}"
        for key, value in node.items()
        if key != "_target_" and value is not None and not isinstance(value, Mapping)
    ]
    more = ", …" if len(values) > _SHOWN else ""
    return f"{_name(node)} ({', '.join(values[:_SHOWN])}{more})" if values else _name(node)


def _span(value: Any) -> str:
    if isinstance(value, list) and len(value) == 2:
        return f"{shown(value[0])} to {shown(value[1])}"
    return shown(value)


def _name(node: Mapping[str, Any]) -> str:
    return str(node["_target_"]).rpartition(".")[2]


def _unreached(plain: Mapping[str, Any]) -> str:
    """The stages of the patches that begin after the last step; empty if all are reached, or if time ends."""
    steps, stages = int(plain["trainer"].get("max_steps") or -1), plain["data"].get("stages") or []
    late = [stage["start_step"] for stage in stages if 0 < steps <= stage["start_step"]]
    if not late:
        return ""
    return f"{len(late)} of {len(stages)} data.stages are not reached, the first begins at step {late[0]:,}"


def _length(trainer: Mapping[str, Any]) -> str:
    steps, length = (
        int(trainer.get("max_steps") or -1),
        vocabulary.seconds(trainer.get("max_time"), "max_time"),
    )
    parts = [f"{steps:,} step{'s' * (steps > 1)}"] if steps > 0 else []
    parts += [f"{trainer['max_epochs']} epochs"] if (trainer.get("max_epochs") or -1) > 0 else []
    parts += [vocabulary.duration(length)] if length is not None else []
    return " or ".join(parts) or "no end"
