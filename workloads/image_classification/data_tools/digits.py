"""The mini data set: handwritten digits as JPEG files in ImageNet's layout."""

from pathlib import Path

import numpy as np

from hpcai500.errors import OccupiedError
from hpcai500.files import new_folder, storage
from hpcai500.spec.workload import Settings


def digits_to_jpeg(folder: Path, settings: Settings) -> str:
    """Write scikit-learn's handwritten digits as JPEG files in ImageNet's layout; atomic, deterministic.

    1,797 images of 8 x 8 with 17 grey levels, each enlarged to the problem's size; a stratified fifth is `val`.
    """
    from PIL import Image
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]
    from sklearn.model_selection import train_test_split  # type: ignore[import-untyped]

    if (folder / "train").is_dir():
        return f"{folder}: prepared already"
    if folder.exists() and any(folder.iterdir()):
        raise OccupiedError(f"{folder} holds something else", "give another --data")
    digits = load_digits()
    splits = train_test_split(
        range(len(digits.target)),
        test_size=settings.problem.num_eval_samples,
        stratify=digits.target,
        random_state=0,
    )
    size = int(settings.data["image_size"])  # type: ignore[arg-type]
    try:
        with new_folder(folder) as temporary, storage(folder):
            for split, members in zip(("train", "val"), splits, strict=True):
                for member in members:
                    place = temporary / split / f"digit_{digits.target[member]}"
                    place.mkdir(parents=True, exist_ok=True)
                    grey = (digits.images[member] * (255 / 16)).astype(np.uint8)
                    image = Image.fromarray(grey).resize((size, size), Image.Resampling.BICUBIC)
                    image.save(place / f"{member:04d}.JPEG", quality=95)
    except FileExistsError:  # another process was faster
        return digits_to_jpeg(folder, settings)
    return f"{folder}: wrote {len(splits[0]):,} training and {len(splits[1]):,} validation images"
