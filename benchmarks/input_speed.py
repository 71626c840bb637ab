"""Input speed: JPEG files compared with torchvision's reference pipeline, and frames compared with a raw read."""

import importlib.util
import multiprocessing
import os
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pairs import Row, paired
from PIL import Image
from sklearn.datasets import load_sample_images
from torch.utils.data import default_collate
from torchvision import transforms
from torchvision.datasets import ImageFolder

from hpcai500.spec.models import parse
from hpcai500.spec.workload import find_workload, load_rules
from hpcai500.train.loading import Loader
from hpcai500.train.workload import SampleKey, load_workload

NUM_IMAGES, NUM_CLASSES, BATCH = 256, 4, 32
LOADER_BATCH, BATCHES_PER_LOADER = 256, 4
"""The full problem's batch, and batches that each process reads between two readings of the clock."""
NUM_FRAMES = 4


def rows() -> list[Row]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [*jpeg_rows(), *frame_rows()]
    finally:
        torch.set_num_threads(threads)


def jpeg_rows() -> list[Row]:
    load_workload(find_workload("image_classification"))  # adds the folder of workloads to the path
    from image_classification.data import DataSettings
    from image_classification.data_tools.prepare import prepare
    from image_classification.dataset import open_dataset
    from image_classification.views import ImageReader

    settings = parse(DataSettings, load_rules(find_workload("image_classification")).problems["full"].data, "data")
    with tempfile.TemporaryDirectory() as name:
        tree, packed = Path(name) / "tree", Path(name) / "packed"
        write_photographs(tree / "train", NUM_IMAGES)
        write_photographs(tree / "val", 2 * NUM_CLASSES)
        list(prepare(tree, packed, NUM_CLASSES))
        reference = one_core_reference(tree / "train", settings)
        readers = {
            (layout, decoder): ImageReader(open_dataset(folder, NUM_CLASSES).train, settings, 0, decoder)
            for layout, folder in (("files", tree), ("shards", packed))
            for decoder in ("torchvision", "simplejpeg")
            if decoder == "torchvision" or importlib.util.find_spec("simplejpeg")
        }
        found = []
        for (layout, decoder), reader in readers.items():
            first, second, ratio = paired(reference, partial(read_all, reader))
            rates = [f"{NUM_IMAGES / taken:,.0f} images/s" for taken in (second, first)]
            title = f"JPEG on one core ({layout}, {decoder}): ours / torchvision's reference"
            found.append(Row(title, *rates, ratio, ">= 1.6"))
        train = open_dataset(tree, NUM_CLASSES).train
        files = [train.read(i) for i in range(NUM_IMAGES)]
        return [*found, *(loader_row(*names, reader, files) for names, reader in readers.items())]


def write_photographs(folder: Path, count: int) -> None:
    """JPEG files of 500 x 375 and quality 90, cut from scikit-learn's two photographs."""
    rng = random.Random(0)
    photographs = [Image.fromarray(image) for image in load_sample_images().images]
    for number in range(count):
        photograph, share = photographs[number % 2], rng.uniform(0.8, 1.0)
        width, height = int(500 * share), int(375 * share)
        left, top = rng.randint(0, photograph.width - width), rng.randint(0, photograph.height - height)
        place = folder / f"class_{number % NUM_CLASSES}"
        place.mkdir(parents=True, exist_ok=True)
        cut = photograph.crop((left, top, left + width, top + height)).resize((500, 375), Image.Resampling.BICUBIC)
        cut.save(place / f"{number:05d}.JPEG", quality=90)


def one_core_reference(folder: Path, settings: Any) -> Callable[[], None]:
    """ImageFolder and the first transforms of torchvision: Pillow, floats, normalised on the CPU."""
    views = transforms.Compose(
        [
            transforms.RandomResizedCrop(settings.image_size, settings.crop_area, settings.crop_aspect),
            transforms.RandomHorizontalFlip(settings.flip_probability),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    dataset = ImageFolder(str(folder), views)

    def read() -> None:
        for start in range(0, NUM_IMAGES, BATCH):
            default_collate([dataset[index] for index in range(start, start + BATCH)])

    return read


def read_all(reader: Any) -> None:
    for start in range(0, NUM_IMAGES, BATCH):
        reader([SampleKey(1, index) for index in range(start, start + BATCH)])


def loader_row(layout: str, decoder: str, reader: Any, files: list[Any]) -> Row:
    """Our loader on all cores, compared with equally many processes that only decode and crop files in memory."""
    cores = len(os.sched_getaffinity(0))
    loader = Loader(reader, num_workers=cores, pin_memory=False, batch_bytes=reader.num_bytes(LOADER_BATCH))
    keys = [SampleKey(1, index % NUM_IMAGES) for index in range(cores * BATCHES_PER_LOADER * LOADER_BATCH)]
    batches = [keys[start : start + LOADER_BATCH] for start in range(0, len(keys), LOADER_BATCH)]
    with decoders(reader, decoder, files, cores) as decode_all:
        first, second, ratio = paired(decode_all, lambda: [None for _ in loader.read(batches)] and None)
    rates = [f"{len(keys) / taken:,.0f} images/s" for taken in (second, first)]
    title = f"JPEG loader, {cores} processes ({layout}, {decoder}) / decode and crop alone"
    return Row(title, *rates, ratio, ">= 0.9")


@contextmanager
def decoders(reader: Any, decoder: str, files: list[Any], count: int) -> Iterator[Callable[[], None]]:
    context = multiprocessing.get_context("fork")
    pipes = [context.Pipe() for _ in range(count)]
    processes = [
        context.Process(target=decode_when_asked, args=(reader, decoder, files, there)) for _, there in pipes
    ]
    for process in processes:
        process.start()

    def decode_all() -> None:
        for here, _ in pipes:
            here.send(True)
        for here, _ in pipes:
            here.recv()

    yield decode_all
    for here, _ in pipes:
        here.send(False)
    for process in processes:
        process.join()


def decode_when_asked(reader: Any, decoder: str, files: list[Any], pipe: Any) -> None:
    from image_classification.decoding import decode

    torch.set_num_threads(1)
    while pipe.recv():
        for number in range(BATCHES_PER_LOADER * LOADER_BATCH):
            index = number % NUM_IMAGES
            reader.view(decode(files[index], decoder), SampleKey(1, index))
        pipe.send(True)


def frame_rows() -> list[Row]:
    """Frames of 768 x 1152, compared with a raw read of the same bytes of the same file, all from warm pages."""
    load_workload(find_workload("extreme_weather"))
    from extreme_weather.data_tools.prepare import prepare
    from extreme_weather.data_tools.synthesize import synthesize
    from extreme_weather.frames import Frames
    from extreme_weather.layout import DataSettings, read_manifest
    from extreme_weather.loading import Buffers, ReadAhead, page_aligned
    from extreme_weather.workload import read_batch

    full = load_rules(find_workload("extreme_weather")).problems["full"]
    settings = parse(DataSettings, {**full.data, "test_years": []}, "data")
    with tempfile.TemporaryDirectory() as name:
        published, prepared = Path(name) / "published", Path(name) / "prepared"
        list(synthesize(settings, published, num_samples=NUM_FRAMES, seed=0))
        list(prepare(settings, published, prepared))
        buffer = page_aligned((16, 768, 1152))  # the fastest target of a raw read

        def frames_of(folder: Path) -> Frames:
            return Frames(folder, read_manifest(folder), settings.train_years)

        def read(folder: Path) -> Callable[[], None]:
            frames = frames_of(folder)
            return lambda: [frames.read_into(index, buffer) for index in range(NUM_FRAMES)] and None

        def load(folder: Path) -> Callable[[], None]:
            """Read as training does: batches of one frame, which a thread reads ahead into reused buffers."""
            frames, buffers = frames_of(folder), Buffers(pin=False)
            loader = ReadAhead(lambda keys: read_batch(frames, keys, buffers), num_threads=1)
            keys = [[index] for index in range(NUM_FRAMES)] * 4

            def run() -> None:
                for batch in loader.read(keys):
                    del batch

            return run

        def raw(times: int = 1) -> None:
            for _ in range(times):
                with (prepared / "climo_1980.h5").open("rb", buffering=0) as file:
                    for _ in range(NUM_FRAMES):
                        file.readinto(buffer)

        found = []
        for what, times, ours, goal in (
            ("frames, prepared: our reader", 1, read(prepared), ">= 0.8"),
            ("frames, prepared: the loader of training", 4, load(prepared), ">= 0.8"),
            ("frames, published (gzip): our reader", 1, read(published), ""),
        ):
            first, second, ratio = paired(partial(raw, times), ours)
            rates = [f"{times * NUM_FRAMES * buffer.nbytes / taken / 1e9:.2f} GB/s" for taken in (second, first)]
            found.append(Row(f"{what} / raw sequential read", *rates, ratio, goal))
    return found


def main() -> None:
    import tabulate

    print(tabulate.tabulate(rows(), Row._fields, tablefmt="pipe", disable_numparse=True))


if __name__ == "__main__":
    main()
