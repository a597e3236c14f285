"""The parser of commands with options: a mistake is one message that names the fix, without the usage."""

import argparse
import difflib
import re
from collections.abc import Sequence
from typing import Any, NoReturn

WHICH_NETWORK = (
    "network of weights that do not show it, with arguments where they are needed: ircnn, "
    "fsrcnn,scale=2; `restora networks` lists them"
)
"""The help of --network."""


class Parser(argparse.ArgumentParser):
    """Raises ValueError where argparse would print its usage and exit."""

    _given: Sequence[str] = ()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self._given = () if args is None else args
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        known = [word for word in self._option_string_actions if word.startswith("--")]
        if message.startswith("the following arguments are required") and (odd := self._misspelt(known)):
            message = f"unrecognized arguments: {' '.join(odd)}"
        unknown = message.partition("unrecognized arguments: ")[2].split()
        options = [word.partition("=")[0] for word in unknown if word.startswith("-")]
        near = [name for word in options for name in difflib.get_close_matches(word, known, n=1)]
        hint = f" Did you mean {' '.join(near)}?" if near else f" `{self.prog} --help` lists the options."
        raise ValueError(f"{re.sub(r'^argument : ', '', message)}.{hint}")

    def _misspelt(self, known: Sequence[str]) -> list[str]:
        """The options that do not exist, also none that is abbreviated."""
        names = [word.partition("=")[0] for word in self._given if re.match(r"--\w", word)]
        return [name for name in names if not any(word.startswith(name) for word in known)]

    def add_subparsers(self, **options: Any) -> Any:
        return super().add_subparsers(**{"parser_class": Parser, **options})


def with_plain_names(argv: Sequence[str]) -> list[str]:
    """The arguments without `--`; what follows it are names, also those that begin with a dash."""
    words = list(argv)
    if "--" not in words:
        return words
    at = words.index("--")
    return words[:at] + [f"./{word}" if word.startswith("-") else word for word in words[at + 1 :]]
