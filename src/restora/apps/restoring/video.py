"""The videos of `restora restore`: what cannot be done to them, and one restored with its progress."""

import argparse
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from restora.apps.restoring.plan import Failure, Job

if TYPE_CHECKING:
    from restora.apps.restoring.settings import Settings
    from restora.artifact.restorer import Restorer
    from restora.video.restoring import VideoOutcome

SECONDS = 60.0
"""Time between two lines on the progress where no terminal shows a bar."""


def refused(options: argparse.Namespace) -> str:
    """Why videos are not restored with these options, with the fix; empty if they are."""
    if options.model.startswith("method:"):
        return "is a video, and a method is fitted to one photo: give a model, such as zoo:photo"
    if options.mask is not None:
        return "is a video, and --mask is of one photo: leave it out"
    if options.compare:
        return "is a video, and --compare is of photos: leave it out"
    return ""


def restore(
    job: Job,
    restorer: "Restorer",
    settings: "Settings",
    show: Callable[[float, int], None],
    say: Callable[[str], None],
) -> "VideoOutcome":
    """Writes the restored video. `show` gets the frames done and in all; it may raise, to stop the work."""
    from restora.video.restoring import restore_video
    from restora.video.writing import QUALITY

    said = time.monotonic()

    def progress(done: float, total: int) -> None:
        nonlocal said
        show(done, total)
        if time.monotonic() - said > SECONDS:
            said = time.monotonic()
            say(frames_done(done, total))

    return restore_video(
        job.source,
        job.target,
        restorer,
        quality=QUALITY if settings.quality is None else settings.quality,
        strength=settings.strength,
        self_ensemble=settings.self_ensemble,
        strip_metadata=settings.strip_metadata,
        estimate=settings.estimate,
        progress=progress,
    )


def frames_done(done: float, total: int) -> str:
    """The progress in words: frame 120/3000."""
    return f"frame {int(done)}/{total}" if total else f"frame {int(done)}"


def failure_of(job: Job, outcome: "VideoOutcome") -> list[Failure]:
    """The failure of a video that was not restored completely."""
    return [Failure(job.name, outcome.fault)] if outcome.fault else []
