"""The parser of commands with options: a mistake is one message that names the fix, without the usage."""

import argparse
import difflib
import re
from collections.abc import Sequence
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """Raises ValueError where argparse would print its usage and exit."""

    def error(self, message: str) -> NoReturn:
        known = [word for word in self._option_string_actions if word.startswith("--")]
        unknown = message.partition("unrecognized arguments: ")[2].split()
        options = [word.partition("=")[0] for word in unknown if word.startswith("-")]
        near = [name for word in options for name in difflib.get_close_matches(word, known, n=1)]
        hint = f" Did you mean {' '.join(near)}?" if near else f" `{self.prog} --help` lists the options."
        raise ValueError(f"{re.sub(r'^argument : ', '', message)}.{hint}")

    def add_subparsers(self, **options: Any) -> Any:
        return super().add_subparsers(**{"parser_class": Parser, **options})


def with_plain_names(argv: Sequence[str]) -> list[str]:
    """The arguments without `--`; what follows it are names, also those that begin with a dash."""
    words = list(argv)
    if "--" not in words:
        return words
    at = words.index("--")
    return words[:at] + [f"./{word}" if word.startswith("-") else word for word in words[at + 1 :]]
