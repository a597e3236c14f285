"""Sources of one's own that break their contract are named, with the fix."""

from pathlib import Path
from typing import Any

import pytest

from restora.data.packing import PhotoFile
from restora.data.sources import Source, Split, files_of
from restora.photos.errors import DataError

A, B = Path("a.png"), Path("more/a.png")


class Own(Source):
    name = "own"

    def __init__(self, *files: Any) -> None:
        self.files = files

    def check(self) -> None: ...

    def photos(self, split: Split) -> Any:
        return (file for file in self.files)


class Nameless(Own):
    name = None  # type: ignore[assignment]


def test_any_iterable_of_files_will_do() -> None:
    assert files_of(Own(PhotoFile("a", A), PhotoFile("more/a", B)), "train") == [
        PhotoFile("a", A),
        PhotoFile("more/a", B),
    ]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Own(A), r"photos\(\) of Own gave a PosixPath, expected PhotoFile\(name, path\)"),
        (Own(PhotoFile("a", A), PhotoFile("a", B)), r"gives a\.png and more/a\.png one name, 'a'"),
        (Nameless(), 'Nameless has no name: set it in the class, such as name = "mine"'),
    ],
)
def test_what_a_source_must_not_give_is_named(source: Source, message: str) -> None:
    with pytest.raises(DataError, match=message):
        files_of(source, "train")
