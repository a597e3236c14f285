"""Freely licensed photographs from Debian packages: the training photos of the zoo's models.

`free_photos.json` names each photo: package, file, author, licence, source where one is given, size, bits
per pixel, and the size that it is reduced to. Every photo is downsampled by 1.6 to 3 (Lanczos) to remove the
traces of its compression. Left out are drawings, near-duplicates of each other and of the usual test sets,
photos without a named author, and licences other than CC0, public domain, CC-BY, CC-BY-SA, LGPL and GPL.

Note: scikit-image's photos are free as well, but left out, so that `data=sample` and the demonstrations use
photos that no model was trained on.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from restora.data.archives import Archive, CorruptArchive
from restora.data.debian import files_of_package
from restora.data.download import Patience, fetch, is_placed, mark_as_fetched, release
from restora.data.locking import sole_process
from restora.data.progress import progress
from restora.data.sources import Folder, Split
from restora.files import write_whole
from restora.photos.errors import DataError
from restora.photos.reading import list_photos, read_photo
from restora.registry import register

MIRRORS = (
    "http://deb.debian.org/debian",
    "https://snapshot.debian.org/archive/debian/20250520T000000Z",
)
"""The second keeps versions that the first no longer has. Downloads are verified by their SHA-256."""
_PATIENCE = Patience(attempts=4)


@dataclass(frozen=True)
class FreePhoto:
    """One photo of the manifest. `size` and `reduced_to` are (width, height)."""

    package: str
    file: str
    author: str
    licence: str
    size: tuple[int, int]
    bits_per_pixel: float
    reduced_to: tuple[int, int]
    source: str | None = None

    @property
    def reduction(self) -> float:
        """The factor by which the original is downsampled."""
        return self.size[0] / self.reduced_to[0]


@dataclass(frozen=True)
class Package:
    """A Debian package: `path` below a mirror's address."""

    version: str
    path: str
    bytes: int
    sha256: str


@cache
def manifest() -> tuple[dict[str, Package], dict[str, FreePhoto]]:
    """Packages and photos by name."""
    values = json.loads(Path(__file__).with_name("free_photos.json").read_text(encoding="utf-8"))
    packages = {name: Package(**fields) for name, fields in values["packages"].items()}
    return packages, {name: FreePhoto(**_as_tuples(fields)) for name, fields in values["photos"].items()}


def _as_tuples(fields: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}


@register("source", "free_photos")
class FreePhotos(Folder):
    """The photos of the manifest in one folder, split by a hash of their names.

    `url` is the mirror that packages are fetched from; null tries `MIRRORS` one after the other.
    """

    def __init__(
        self,
        *,
        root: str | Path,
        val_fraction: float = 0.05,
        test_fraction: float = 0.05,
        url: str | None = None,
    ) -> None:
        super().__init__(root=root, val_fraction=val_fraction, test_fraction=test_fraction)
        self.folder = Path(root).expanduser()
        self.mirrors = MIRRORS if url is None else (url,)
        self.name = "free_photos"

    def check(self) -> None:
        missing = self.missing()
        if missing:
            raise DataError(
                f"{len(missing)} of {len(manifest()[1])} photos are not in {self.folder}, such as "
                f"{missing[0]}: run `restora prepare data=free_photos`"
            )

    def photos(self, split: Split) -> list[Any]:
        self.check()
        return super().photos(split)

    def missing(self) -> list[str]:
        """Names of the manifest's photos that are not there."""
        there = {path.stem for path in list_photos(self.folder)} if self.folder.is_dir() else set()
        return [name for name in manifest()[1] if name not in there]

    def obtain(self, *, tracks: Sequence[str] = (), keep_archives: bool = False) -> None:
        """Downloads the packages of missing photos, one after the other, and makes the photos."""
        if tracks:
            raise DataError(f"{' '.join(tracks)}: only DIV2K has tracks (data=div2k)")
        if self.missing():
            self._make_missing(keep_archives=keep_archives)
        self.check()

    def _make_missing(self, *, keep_archives: bool) -> None:
        with sole_process(self.folder / ".download.lock", doing=f"downloading into {self.folder}"):
            packages, photos = manifest()
            wanted: dict[str, list[str]] = defaultdict(list)
            for name in self.missing():
                wanted[photos[name].package].append(name)
            for package, names in wanted.items():
                archive = self.folder / ".packages" / Path(packages[package].path).name
                placed = is_placed(archive)
                if not archive.exists():
                    self._download(packages[package], archive)
                    mark_as_fetched(archive)
                _make_photos(archive, {name: photos[name] for name in names}, self.folder)
                if not placed:
                    release(archive, keep=keep_archives)

    def _download(self, package: Package, target: Path) -> None:
        """Downloads from the first mirror that has it. Raises `DataError` with each mirror's error."""
        target.parent.mkdir(parents=True, exist_ok=True)
        answers = []
        for mirror in self.mirrors:
            archive = Archive(target.name, "", package.bytes, package.sha256, verify_key=None)
            try:
                return fetch(
                    archive, url=f"{mirror.rstrip('/')}/{package.path}", target=target, patience=_PATIENCE
                )
            except DataError as error:
                answers.append(str(error))
        raise DataError("\n".join(answers))


def _make_photos(package: Path, photos: dict[str, FreePhoto], folder: Path) -> None:
    """Writes `folder`/NAME.png for each photo, each whole or not at all."""
    names = {photo.file: name for name, photo in photos.items()}
    with progress(f"reducing photos of {package.name}", len(names)) as advance:
        for file, content in files_of_package(package, names):
            name = names[file]
            write_whole(folder / f"{name}.png", _reduced(content, photos[name], package))
            advance(1)


def _reduced(content: bytes, photo: FreePhoto, package: Path) -> bytes:
    """The photo at its reduced size, as PNG."""
    from PIL import Image

    suffix = Path(photo.file).suffix
    original = package.with_name(f".original{suffix}")
    original.write_bytes(content)
    try:
        pixels = read_photo(original, "rgb")
    finally:
        original.unlink()
    if (pixels.shape[1], pixels.shape[0]) != photo.size:
        raise CorruptArchive(
            f"{photo.file} of {package.name} is {pixels.shape[1]}x{pixels.shape[0]}, expected "
            f"{photo.size[0]}x{photo.size[1]}"
        )
    out = BytesIO()
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.resize(photo.reduced_to, Image.Resampling.LANCZOS).save(out, "PNG", compress_level=1)
    return out.getvalue()
