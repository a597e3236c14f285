"""The models that the operator named, each with its restorer and a description for users."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from restora.artifact.model_folder import ModelDescription
from restora.artifact.restorer import Restorer
from restora.serving.schemas import ModelState
from restora.vocabulary import Precision
from restora.words import for_videos

WORDS = {
    "photo": ("Everyday photo", "Removes grain and small square blocks, and leaves a good photo as it is."),
    "denoise": ("Grainy", "Removes grain and colour specks, as in photos taken in the dark."),
    "deblur": ("Blurred", "Sharpens photos that are shaky or out of focus."),
    "jpeg": ("Blocky", "Removes the square blocks and halos of strong JPEG compression."),
    "super_resolution": ("Small", "Enlarges the photo and adds fine detail."),
    "inpaint": (
        "Scratched or torn",
        "Fills in what you paint over: scratches, tears, stains or unwanted objects.",
    ),
    "colourise": ("Black and white", "Adds colours to a black-and-white photo."),
    "colour": ("Faded", "Brings back the contrast and colours of faded photos."),
    "old_photo": ("Old photo", "Removes scratches and grain, and brings back faded colours."),
    "derain": ("Rainy", "Removes streaks of rain."),
}
"""Task -> a short name of the photo's defect, and a sentence on what the model does."""


@dataclass
class ServedModel:
    """A restorer under the name that requests use; `pace` is its measured seconds per megapixel of photo."""

    name: str
    restorer: Restorer
    description: ModelDescription
    pace: float | None = None
    example: tuple[bytes, bytes] | None = None
    """a PNG of a degraded photo, and one of the model's result"""

    @property
    def needs(self) -> str:
        """What the model is conditioned on: nothing, noise level, mask."""
        return self.description.conditioned_on

    @property
    def words(self) -> tuple[str, str]:
        scale = self.restorer.scale
        task = self.description.task
        title, text = WORDS.get(task, (self.name, "Restores photos like those that it was trained on."))
        if scale == 1:
            return title, text
        return f"{title}, ×{scale}", f"{text} The result is {scale} times as wide and as high."

    def seconds(self, megapixels: float) -> float:
        """Estimated time of a photo, by the measured pace."""
        return (self.pace or 0) * megapixels

    def measured(self, megapixels: float, seconds: float) -> None:
        """Updates the pace by a photo that took `seconds`; a tiny photo has little weight."""
        now = seconds / megapixels
        weight = 0.3 * min(megapixels / 0.25, 1) ** 2
        self.pace = now if self.pace is None else self.pace + weight * (now - self.pace)

    def as_json(self) -> ModelState:
        """The entry of the model in `GET /v1/models`."""
        title, text = self.words
        held = self.description
        return {
            "name": self.name,
            "task": held.task,
            "title": title,
            "description": text,
            "scale": self.restorer.scale,
            "channels": {"in": held.in_channels, "out": held.out_channels},
            "needs": self.needs,
            "sigma": self.restorer.sigma,
            "example": None if self.example is None else f"/v1/models/{quote(self.name, safe='')}/example",
            "seconds_per_megapixel": None if self.pace is None else round(self.pace, 4),
        }


def load_models(
    sources: Sequence[str],
    *,
    device: str,
    precision: Precision,
    tile: int,
    engine: str = "auto",
    task: str | None = None,
    network: str | None = None,
) -> dict[str, ServedModel]:
    """All sources by name, in their order; a repeated name gets a number.

    `task` is the task of sources that do not state one, `network` the network of weights. Raises ValueError.
    """
    models: dict[str, ServedModel] = {}
    for source in sources:
        if source.startswith("method:"):
            raise ValueError(
                f"{source} is fitted to each photo, which takes seconds to hours, too long for a server: use "
                f"`restora restore {source}`, or name a model"
            )
        restorer = Restorer.load(
            source, device=device, precision=precision, tile=tile, engine=engine, task=task, network=network
        )
        assert restorer.description is not None
        if restorer.description.conditioned_on == "maps":
            raise ValueError(
                f"{source} is conditioned on maps that a photo alone does not have: use it from Python"
            )
        if restorer.network.frames > 1:
            raise ValueError(f"{source}: {for_videos(restorer.network.frames)}: serve models of photos")
        base = restorer.description.name or Path(source).name
        name, number = base, 2
        while name in models:
            name, number = f"{base}-{number}", number + 1
        models[name] = ServedModel(name=name, restorer=restorer, description=restorer.description)
    if task is not None and all(model.description.task != task for model in models.values()):
        raise ValueError(f"--task {task}: each source states a task of its own: leave it out")
    return models
