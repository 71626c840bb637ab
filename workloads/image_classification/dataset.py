"""An image data set, opened from shards or from folders of files."""

from pathlib import Path

from hpcai500.errors import DataError

from .data import Indices, read_index
from .shard_names import is_packed, is_unfinished


def open_dataset(folder: Path, num_classes: int) -> Indices:
    """The splits of a data set: from shards if there are any, else from folders of files."""
    if is_packed(folder):
        from .shards import open_packed

        return open_packed(folder, num_classes)
    if is_unfinished(folder):
        raise DataError(
            f"{folder}: its packing is unfinished", "run `hpcai500 data prepare` again, with its --source"
        )
    return read_index(folder, num_classes)
