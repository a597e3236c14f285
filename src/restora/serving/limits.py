"""Limits on the cost of requests."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits on one photo, the queue and kept results; megapixels count the larger of photo and result."""

    megabytes: float = 100
    megapixels: float = 100
    seconds: float = 600
    """computing time of one photo"""
    queue: int = 16
    """photos that wait or are being uploaded, beside the one that is computed"""
    upload_seconds: float = 600
    stall_seconds: float = 10
    """an upload is given up when it is this far behind `upload_kilobytes` per second"""
    upload_kilobytes: float = 10
    keep_seconds: float = 900
    """how long a result can be fetched"""
    kept_megabytes: float = 4000
    """results (uncompressed, on disk) beyond this are removed early, the oldest first"""
    kept_jobs: int = 2000

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(f"{name} must be more than 0, got {value}")

    def upload_deadline(self, received: int) -> float:
        """Seconds from its start within which an upload of which `received` bytes arrived must go on."""
        due = self.stall_seconds + received / (self.upload_kilobytes * 1e3)
        return min(self.upload_seconds, due)

    @property
    def bytes(self) -> int:
        return int(self.megabytes * 1e6)
