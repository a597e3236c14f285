"""Which packed photos are large enough for the crops that are cut from them."""

from restora.data.crops import usable_size
from restora.data.store import PhotoStore
from restora.photos.errors import DataError


def large_enough(
    store: PhotoStore, split: str, *, least: int, scale: int, reduction: int = 1, margin: int = 0
) -> list[int]:
    """The numbers of the photos whose sides have `least` pixels, for crops reduced by `reduction`.

    `least` includes the margins of photos that move.

    Raises `DataError` with the fix if there is none.
    """
    sides = [min(usable_size(entry, scale)) for entry in store.entries]
    numbers = [number for number, side in enumerate(sides) if side >= least]
    if not numbers:
        largest = max(sides) // reduction - 2 * margin
        fix = f"set data.patch_size to {largest} or less" if split == "train" else "give larger ones"
        if split == "train" and margin:
            moved = f"which includes {margin} on each side for photos that move"
            slower = "lower data.motion.pan" if largest < 1 else f"{fix}, or lower data.motion.pan"
            raise DataError(f"all photos for {split} are smaller than {least}x{least}, {moved}: {slower}")
        raise DataError(f"all photos for {split} are smaller than {least}x{least}: {fix}")
    return numbers
