"""What can be wrong with data, as the user's mistakes: the message names the file or the key and the fix."""

from pathlib import Path


class DataError(ValueError):
    """A data set that is missing or not as it should be; the message says what to set or to run."""


class DecodingError(DataError):
    """What is wrong with a photo file, to be put behind its name."""


class PhotoError(DataError):
    """A file that cannot serve as a photo: `path` and the `reason`."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = path, reason

    def __reduce__(self) -> tuple[type["PhotoError"], tuple[Path, str]]:
        return PhotoError, (self.path, self.reason)
