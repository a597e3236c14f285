"""Errors in the user's data: the message names the file or the key, and the fix."""

from pathlib import Path


class DataError(ValueError):
    """A data set that is missing or invalid; the message says what to set or to run."""


class DecodingError(DataError):
    """An error in a photo file; the message is to follow the file's name."""


class MissingPackageError(DecodingError):
    """A photo of a format that a package reads which is not installed; the message names both."""


class PhotoError(DataError):
    """A file that cannot be used as a photo: `path` and the `reason`."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = path, reason

    def __reduce__(self) -> tuple[type["PhotoError"], tuple[Path, str]]:
        return PhotoError, (self.path, self.reason)
