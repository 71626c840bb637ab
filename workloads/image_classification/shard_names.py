"""Names of the files of packed images, apart from `shards.py` since folders of images need no h5py."""

import os
import re
from pathlib import Path

INDEX = "index.h5"
SHARD = re.compile(r"(train|val)-\d{4,}\.h5")


def is_packed(folder: Path) -> bool:
    return (folder / INDEX).is_file()


def is_unfinished(folder: Path) -> bool:
    """Whether the folder has shards, whole or in part, and neither an index nor folders."""
    names = os.listdir(folder) if folder.is_dir() else []
    shards = [name for name in names if SHARD.fullmatch(name.lstrip(".").removesuffix(".partial"))]
    return bool(shards) and not {INDEX, "train"} & set(names)
