"""DIV2K: 800 training and 100 validation photos in 2K, with low-resolution tracks of two challenges.

E. Agustsson and R. Timofte, "NTIRE 2017 Challenge on Single Image Super-Resolution: Dataset and Study", CVPRW
2017 (bicubic ×2 ×3 ×4, unknown ×2 ×3 ×4); R. Timofte et al., "NTIRE 2018 Challenge on Single Image
Super-Resolution", CVPRW 2018 (bicubic ×8; mild, difficult and wild ×4). For academic research only.

Folders and names are those of the official archives, so a copy that is already on the disk is used as it is.
The official validation photos are split again, because photos that choose a checkpoint must not be those that
results are reported on: the first `val_photos` of them are `val`, the rest `test`.
"""

from collections.abc import Sequence
from pathlib import Path

from restora.data.archives import Archive
from restora.data.download import obtain
from restora.data.locking import sole_process
from restora.data.packing import PhotoFile
from restora.data.pairs import pair_up
from restora.data.sources import Source, Split, named
from restora.photos.errors import DataError
from restora.photos.reading import list_photos
from restora.registry import register

URL = "https://data.vision.ee.ethz.ch/cvl/DIV2K"
TRACK_SCALES = {
    "bicubic": (2, 3, 4, 8),
    "unknown": (2, 3, 4),
    "mild": (4,),
    "difficult": (4,),
    "wild": (4,),
}
_HALVES = ("train", "valid")
_KNOWN = {
    "train_HR": (3530603713, "9d0b9c463f6e35b6c62cc6a930ee2224f670b34c1df841a57670f9acf0f6c335"),
    "train_LR_bicubic_X2": (925390592, "a53a424317575838dadce4bcd97cf7b744d6855f43740ed5f0245af3cf4bd850"),
    "train_LR_bicubic_X3": (427847282, "ad5c8e5507e2765823d3c2c5bd0934842efcd487c5370604c224090898b3163a"),
    "train_LR_bicubic_X4": (246914039, "f006b837f4eb52b82909aa01478e6d6d199eefce932179491d0c9dbb706dde3a"),
    "train_LR_difficult": (263211252, "50624a649a0857fdb8e4a948e79c44c37dedbacb5729f9349cc983c47bfdf799"),
    "train_LR_mild": (275693358, "ce5fbe6252d1000c55656b0666dccdeaf8e66b86ae5ff528c49343012e8e1391"),
    "train_LR_unknown_X2": (734182735, "f166eeba119fc55bfc9a99c05561980e7a965382f36640ce8ef626c9f61d122c"),
    "train_LR_unknown_X3": (377245548, "b6455af3b2aa02d76ae3238c49d7aae3b48b0acdc44b5bdc0f4c02d40ebcb43b"),
    "train_LR_unknown_X4": (208956781, "d131c7aad51e0abbdc4433362ce899e5e75f40b9847ead70ee995188e8fd0adb"),
    "train_LR_wild": (1079873385, "ce68f7db812d12241212bb9d6b07406472bef3d785c463238888b44189c5ceb3"),
    "train_LR_x8": (65753171, "706fa23164fa0756a3accb78e69b937ea47f882b47e13506895deefd623a35c2"),
    "valid_HR": (448993893, "20dd31fd84d777bc1cf5d6b7654a3f569c0aec74458ae094122ad1d0489900fc"),
    "valid_LR_bicubic_X2": (117763600, "60eed9875c697df51204aa579e2a699e1d5215095788a097ff54dd17e2664d57"),
    "valid_LR_bicubic_X3": (54513392, "04b9a2ed3b4a0715d3924d3ae8514830c3328fac8d30512ce716d6f419e052a3"),
    "valid_LR_bicubic_X4": (31505881, "a50a5d1c4b88de4e8d300d8fb2b904c52fe93b2b298a4899697760d7cbb6d553"),
    "valid_LR_difficult": (33596835, "08b4e740496b50846497463121329c707dd8ed26eb8a655d175e9a595286d5e8"),
    "valid_LR_mild": (35300939, "eedfbcb6acc6662a3f52924aaa5a423693244f3276d37c3fca7944c7325859ff"),
    "valid_LR_unknown_X2": (93433041, "ec50bb084c0011130874efd2ed7859b46e0aa7104c565818d5271ac315e04e0a"),
    "valid_LR_unknown_X3": (48143315, "ebf23a3e1ef6800cae97285d3a50d022d89b62655e685884c0abcc89eec5b809"),
    "valid_LR_unknown_X4": (26695095, "e3897555a98de1157c20974fb6093105fbc1ff5e9caf7bd348f58f6da140fbef"),
    "valid_LR_wild": (34655417, "ce921d2048eef3e1fd9ba359d1876b1c93e33bd7a531306f7782672391df9820"),
    "valid_LR_x8": (8428103, "3432f23da7c6887acc5e2cde9669427a7710b3b256c58912dddc19e3eda5bc69"),
}
"""Bytes and SHA-256 of `DIV2K_<key>.zip`, as TensorFlow Datasets records them for the same URLs
(tensorflow_datasets/url_checksums/div2k.txt, commit 333639b); not verified with the archives themselves.
"""


@register("source", "div2k")
class Div2k(Source):
    """The clean photos alone (`track` null), to be degraded on the device, or the pairs of one track.

    `url` is where the archives are fetched from; `verify` compares them with the known sizes and checksums.
    """

    def __init__(
        self,
        *,
        root: str | Path,
        track: str | None = None,
        scale: int = 4,
        val_photos: int = 10,
        url: str = URL,
        verify: bool = True,
    ) -> None:
        if track is not None:
            _check_track(track, scale)
        self.root, self.track, self.val_photos = Path(root).expanduser(), track, val_photos
        self.url, self.verify = url, verify
        self._scale = scale if track else 1
        self.paired = track is not None
        self.name = f"div2k-{track}-x{scale}" if track else "div2k"

    @property
    def scale(self) -> int:
        return self._scale

    def check(self) -> None:
        for half in _HALVES:
            for folder in self._folders(half):
                if not list_photos(folder):
                    option = f"div2k_lr data.source.track={self.track} data.source.scale={self.scale}"
                    raise DataError(
                        f"{folder} does not exist or is empty: run `restora prepare data="
                        f"{option if self.track else 'div2k'}`, or set data.source.root to the folder that "
                        f"holds {folder.relative_to(self.root)}"
                    )
        photos = len(list_photos(self._folders("valid")[0]))
        if not 0 < self.val_photos < photos:
            raise DataError(
                f"data.source.val_photos={self.val_photos} leaves nothing to validate or test on: there are "
                f"{photos} photos, set it between 1 and {photos - 1}"
            )

    def photos(self, split: Split) -> list[PhotoFile]:
        if split == "train":
            return self._half("train")
        photos = self._half("valid")
        chosen = {photo.clean for photo in photos}
        val = set(sorted(chosen)[: self.val_photos])
        return [photo for photo in photos if (photo.clean in val) == (split == "val")]

    def _half(self, half: str) -> list[PhotoFile]:
        clean, *degraded = [named(folder, list_photos(folder)) for folder in self._folders(half)]
        return pair_up(clean, degraded[0]) if degraded else clean

    def _folders(self, half: str) -> list[Path]:
        """The folder of the clean photos of `train` or `valid`, then that of the track's photos."""
        folders = [self.root / f"DIV2K_{half}_HR"]
        if self.track is not None:
            folders.append(self.root / _track_archive(half, self.track, self.scale, verify=False).folder)
        return folders

    def obtain(self, *, tracks: Sequence[str] = (), keep_archives: bool = False) -> None:
        """Downloads the photos, this source's track, and further `tracks` such as `bicubic_x2` or `mild`."""
        wanted = [_parse_track(word) for word in tracks]
        if self.track is not None:
            wanted.append((self.track, self.scale))
        archives = [_photo_archive(half, verify=self.verify) for half in _HALVES]
        for track, scale in dict.fromkeys(wanted):
            archives += [_track_archive(half, track, scale, verify=self.verify) for half in _HALVES]
        if not all((self.root / archive.folder).is_dir() for archive in archives):
            with sole_process(self.root / ".download.lock", doing=f"downloading into {self.root}"):
                for archive in archives:
                    url = f"{self.url.rstrip('/')}/{archive.name}"
                    obtain(archive, url=url, root=self.root, keep=keep_archives)
        self.check()


def _check_track(track: str, scale: int) -> None:
    if track not in TRACK_SCALES:
        raise ValueError(f"DIV2K has no track {track!r}; there are: {', '.join(TRACK_SCALES)}")
    if scale not in TRACK_SCALES[track]:
        there_are = " or ".join(map(str, TRACK_SCALES[track]))
        raise ValueError(f"DIV2K's track {track} has no scale {scale}: set data.source.scale to {there_are}")


def _parse_track(word: str) -> tuple[str, int]:
    """`bicubic_x2` -> ("bicubic", 2); a track with one scale may be given without it."""
    track, _, scale = word.partition("_x")
    scales = TRACK_SCALES.get(track, (4,))
    if not scale and len(scales) == 1:
        scale = str(scales[0])
    if not scale.isdigit():
        raise ValueError(f"{word}: choose one of {', '.join(f'{track}_x{each}' for each in scales)}")
    _check_track(track, int(scale))
    return track, int(scale)


def _photo_archive(half: str, *, verify: bool) -> Archive:
    return _archive(f"{half}_HR", f"DIV2K_{half}_HR", verify=verify)


def _track_archive(half: str, track: str, scale: int, *, verify: bool) -> Archive:
    if scale == 8:
        return _archive(f"{half}_LR_x8", f"DIV2K_{half}_LR_x8", verify=verify)
    if len(TRACK_SCALES[track]) == 1:
        return _archive(f"{half}_LR_{track}", f"DIV2K_{half}_LR_{track}", verify=verify)
    return _archive(f"{half}_LR_{track}_X{scale}", f"DIV2K_{half}_LR_{track}/X{scale}", verify=verify)


def _archive(key: str, folder: str, *, verify: bool) -> Archive:
    size, sha256 = _KNOWN[key] if verify else (None, None)
    return Archive(f"DIV2K_{key}.zip", folder, size, sha256)
