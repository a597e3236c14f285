"""Removes passwords and keys from text that is printed, logged or stored.

Secrets are the user and password of a URL, the values of a URL's query that are named like a token, key or
signature, settings named like `api_key`, and the values of environment variables named so. Each becomes ***.
"""

import os
import re
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")
_HIDDEN = "***"
_NAMES = r"(?:api[-_]?key|access[-_]?key|secret|token|passw(?:or)?d|passphrase)"
_IN_URL = re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://)[^/\s'\"@]*@")
_IN_QUERY = re.compile(rf"(?i)([?&][\w.-]*(?:{_NAMES}|signature|credential|sig|key|auth)[\w.-]*=)[^&\s'\"#]+")
_SETTING = re.compile(rf"(?i)((?:^|[\s.,{{+'\"_-]){_NAMES}['\"]?\s*[=:]\s*)(?!null\b|None\b|\*\*\*)[^\s,}}]+")
_VARIABLE = re.compile(rf"(?i)(?:^|_){_NAMES}s?$")
_KEY = re.compile(rf"(?i)(?:^|[._-]){_NAMES}$")
_SHORTEST = 8
"""Least length of an environment variable's value: shorter ones also occur in ordinary words."""


def redacted(text: str) -> str:
    """`text` without the secrets in it."""
    return _redacted(text, _secret_values())


def without_secrets(value: T) -> T:
    """Plain values with `redacted` applied to every text in them.

    The text under a key named like `api_key` is redacted too.
    """
    cleaned: T = _cleaned(value, _secret_values())
    return cleaned


def _secret_values() -> list[str]:
    """The secret values of the environment."""
    return [
        value
        for name, value in os.environ.items()
        if len(value) >= _SHORTEST and _VARIABLE.search(name) and not os.path.exists(value)
    ]


def _redacted(text: str, secrets: list[str]) -> str:
    text = _IN_URL.sub(rf"\1{_HIDDEN}@", text)
    text = _IN_QUERY.sub(rf"\1{_HIDDEN}", text)
    text = _SETTING.sub(rf"\1{_HIDDEN}", text)
    for secret in secrets:
        text = text.replace(secret, _HIDDEN)
    return text


def _cleaned(value: Any, secrets: list[str]) -> Any:
    if isinstance(value, str):
        return _redacted(value, secrets)
    if isinstance(value, Mapping):
        return {
            key: _HIDDEN if isinstance(part, str) and _KEY.search(str(key)) else _cleaned(part, secrets)
            for key, part in value.items()
        }
    if isinstance(value, list | tuple):
        return [_cleaned(part, secrets) for part in value]
    return value
