import io
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from hpcai500.errors import DataError
from hpcai500.files import data_dir
from hpcai500.spec.workload import load_rules
from hpcai500.train.loading import Loader
from hpcai500.train.workload import SampleKey

sys.path.insert(0, str(data_dir("workloads")))
from image_classification.data import (
    INDEX_CACHE,
    DataSettings,
    ImageIndex,
    read_index,
)
from image_classification.dataset import verify
from image_classification.decoding import decode
from image_classification.digits import digits_to_jpeg
from image_classification.views import ImageReader, random_crop

RULES = load_rules(data_dir("workloads") / "image_classification")
SETTINGS = DataSettings(
    image_size=16,
    crop_area=(0.1, 1.0),
    crop_aspect=(0.75, 1.33),
    flip_probability=0.5,
    eval_resize=20,
    decoder="auto",
)


def smooth_image(width=24, height=20):
    """A picture that JPEG keeps well."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, (x + y) / 2], axis=-1).astype(np.uint8))


@pytest.fixture
def imagenet(tmp_path):
    """Two classes of three training and two validation images, as ImageNet lies on disk."""
    for split, count in (("train", 3), ("val", 2)):
        for wnid in ("n01440764", "n01443537"):
            folder = tmp_path / split / wnid
            folder.mkdir(parents=True)
            for number in range(count):
                smooth_image(24 + number).save(folder / f"{wnid}_{number}.JPEG", quality=95)
    return tmp_path


def flatten_val(folder, *, meta=True):
    """Turn val/ into the flat form with the development kit's files; ids are not in the order of wnids."""
    names = sorted((folder / "val").glob("*/*"))
    for number, path in enumerate(names, start=1):
        path.rename(folder / "val" / f"ILSVRC2012_val_{number:08d}.JPEG")
    for wnid in ("n01440764", "n01443537"):
        (folder / "val" / wnid).rmdir()
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text("2\n2\n1\n1\n")
    if meta:
        kind = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
        synsets = np.array(
            [(1, "n01443537", "goldfish", 0), (2, "n01440764", "tench", 0), (3, "n0", "fish", 2)], kind
        )
        savemat(folder / "meta.mat", {"synsets": synsets.reshape(-1, 1)})


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_every_colour_mode_of_jpeg_decodes_to_what_pillow_shows(tmp_path, mode):
    path = tmp_path / "image.JPEG"
    smooth_image().convert(mode).save(path, quality=95)
    ours = decode(np.fromfile(path, np.uint8))
    assert ours.dtype == torch.uint8
    pillow = np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1).astype(int)
    assert np.abs(ours.numpy().astype(int) - pillow).max() <= 3


def test_a_png_named_jpeg_decodes(tmp_path):
    path = tmp_path / "n02105855_2933.JPEG"
    smooth_image().save(path, format="PNG")
    assert np.array_equal(decode(np.fromfile(path, np.uint8)).numpy().transpose(1, 2, 0), np.asarray(smooth_image()))


def test_a_corrupt_or_missing_file_is_named(tmp_path):
    stream = io.BytesIO()
    smooth_image().save(stream, format="JPEG")
    index = ImageIndex.build(tmp_path, [("bad.JPEG", 0), ("absent.JPEG", 0)])
    for content in (b"", b"no image at all", stream.getvalue()[:300]):
        path = tmp_path / "bad.JPEG"
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"bad\.JPEG: cannot be decoded"):
            index.check(0)
    with pytest.raises(DataError, match=r"absent\.JPEG"):
        index.check(1)


def test_the_index_labels_sorted_classes_and_the_flat_val_agrees(imagenet):
    train, val = read_index(imagenet, 2)
    assert [(train.name(i), int(train.labels[i])) for i in range(len(train))] == [
        (f"{wnid}/{wnid}_{n}.JPEG", label) for label, wnid in enumerate(("n01440764", "n01443537")) for n in range(3)
    ]
    assert val.labels.tolist() == [0, 0, 1, 1]
    flatten_val(imagenet)
    flat = read_index(imagenet, 2).val
    assert flat.labels.tolist() == [0, 0, 1, 1]  # id 2 is the tench, class 0
    assert flat.path(3).is_file()


def test_a_flat_val_without_the_kit_says_what_to_fetch(imagenet):
    flatten_val(imagenet, meta=False)
    with pytest.raises(DataError, match=r"meta\.mat is missing; put both from the ILSVRC 2012 development kit"):
        read_index(imagenet, 2)


def test_the_index_is_cached_until_a_folder_changes(imagenet):
    before = read_index(imagenet, 2)
    cache = imagenet / INDEX_CACHE
    written = cache.stat().st_mtime_ns
    again = read_index(imagenet, 2)
    assert cache.stat().st_mtime_ns == written
    assert (again.train.digest, again.val.digest) == (before.train.digest, before.val.digest)
    smooth_image().save(imagenet / "train" / "n01440764" / "more.JPEG")
    assert len(read_index(imagenet, 2).train) == 7
    cache.write_bytes(b"torn")
    assert len(read_index(imagenet, 2).train) == 7


def test_what_is_missing_from_a_data_set_is_said(imagenet):
    with pytest.raises(DataError, match="2 class folders, the model has 1000 classes"):
        read_index(imagenet, 1000)
    for path in (imagenet / "train" / "n01443537").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="n01443537: class has no image"):
        read_index(imagenet, 2)
    with pytest.raises(DataError, match="no folder 'train'"):
        read_index(imagenet / "val", 2)


def test_verify_names_a_corrupt_file_and_a_wrong_count(imagenet):
    problem = RULES.problems["mini"].problem.model_copy(update={"num_train_samples": 6, "num_eval_samples": 4})
    assert len(list(verify(imagenet, 2, problem))) == 2
    with pytest.raises(DataError, match=r"train: 6 images, the problem has 1,437"):
        list(verify(imagenet, 2, RULES.problems["mini"].problem))
    (imagenet / "val" / "n01440764" / "n01440764_1.JPEG").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"n01440764_1\.JPEG"):
        list(verify(imagenet, 2, problem))


def test_crops_stay_inside_and_cover_the_range_of_areas_and_aspects():
    rng = random.Random(0)
    areas, aspects, flips = [], [], 0
    for _ in range(4_000):
        crop = random_crop(rng, 400, 500, SETTINGS)
        assert 0 <= crop.top <= 400 - crop.height
        assert 0 <= crop.left <= 500 - crop.width
        areas.append(crop.height * crop.width / 200_000)
        aspects.append(crop.width / crop.height)
        flips += crop.flipped
    assert min(areas) == pytest.approx(0.1, abs=0.01)
    assert max(areas) > 0.9
    assert np.percentile(aspects, [1, 99]) == pytest.approx([0.75, 1.33], abs=0.03)
    assert flips / 4_000 == pytest.approx(0.5, abs=0.03)


def test_an_image_too_long_for_any_draw_gets_the_largest_centred_crop():
    settings = SETTINGS.model_copy(update={"crop_area": (0.9, 1.0)})
    assert random_crop(random.Random(0), 10, 1_000, settings)[:4] == (0, 493, 10, 13)


def test_a_sample_is_a_function_of_seed_epoch_and_index_whoever_reads_it(imagenet):
    train = read_index(imagenet, 2).train
    keys = [SampleKey(1, 0), SampleKey(1, 4), SampleKey(2, 0)]
    here = ImageReader(train, SETTINGS, seed=3)(keys)
    assert here.images.shape == (3, 3, 16, 16)
    assert here.labels.tolist() == [0, 1, 0]
    assert not torch.equal(here.images[0], here.images[2])
    loader = Loader(ImageReader(train, SETTINGS, seed=3), num_workers=2, pin_memory=False)
    for _ in range(2):  # the workers live on
        batches = list(loader.read([keys[:1], keys[1:]]))
        assert torch.equal(torch.cat([batch.images for batch in batches]), here.images)
    other = ImageReader(train, SETTINGS, seed=4)(keys)
    assert not torch.equal(other.images, here.images)


def test_a_loader_hands_on_the_error_of_its_process_in_one_line(imagenet):
    train = read_index(imagenet, 2).train
    train.path(4).write_bytes(b"broken")
    loader = Loader(ImageReader(train, SETTINGS, seed=3), num_workers=1, pin_memory=False)
    with pytest.raises(DataError) as caught:
        list(loader.read([[SampleKey(1, 0)], [SampleKey(1, 4)]]))
    assert "\n" not in str(caught.value)
    assert str(train.path(4)) in str(caught.value)


def test_the_digits_are_real_jpeg_files_in_imagenet_s_layout_and_written_once(tmp_path):
    from sklearn.datasets import load_digits

    folder = tmp_path / "mini"
    assert "wrote 1,437 training and 360 validation" in digits_to_jpeg(folder, RULES.problems["mini"])
    assert "prepared already" in digits_to_jpeg(folder, RULES.problems["mini"])
    assert os.listdir(tmp_path) == ["mini"]
    train, val = read_index(folder, 10)
    assert (len(train), len(val)) == (1_437, 360)
    assert np.bincount(val.labels).min() >= 34  # stratified
    digits = load_digits()
    members = [int(index.path(i).stem) for index in (train, val) for i in range(len(index))]
    assert sorted(members) == list(range(1_797))
    for index in (train, val):
        for i in range(0, len(index), 97):
            member = int(index.path(i).stem)
            assert digits.target[member] == index.labels[i]
            shrunk = Image.open(index.path(i)).resize((8, 8), Image.Resampling.BOX)
            assert np.corrcoef(np.asarray(shrunk).ravel(), digits.images[member].ravel())[0, 1] > 0.95


def test_a_loader_s_process_outlives_a_scheduler_s_signal_and_ends_with_its_parent():
    script = """
import os, signal, sys, torch
from hpcai500.train.loading import Loader
loader = Loader(lambda keys: (os.getpid(), list(keys)), num_workers=1, pin_memory=False)
batches = loader.read([[number] for number in range(40)])
pid, _ = next(batches)
for name in ("SIGTERM", "SIGUSR1", "SIGUSR2"):  # as the shell of a batch script would send it, not the parent
    os.spawnlp(os.P_WAIT, "bash", "bash", "-c", f"kill -s {name} {pid}")
assert [keys for _, keys in batches] == [[number] for number in range(1, 40)]
print(pid)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert not Path(f"/proc/{done.stdout.strip()}").exists()
