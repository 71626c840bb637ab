import io
import os
import random
import re
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from torchvision.io import ImageReadMode, decode_image

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
from image_classification.data_tools.digits import digits_to_jpeg
from image_classification.data_tools.prepare import verify
from image_classification.decoding import decode
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


def saved(kind, image=None, **options):
    stream = io.BytesIO()
    (image or smooth_image()).save(stream, kind, **options)
    return stream.getvalue()


def png_of_16_bits(values):
    """`values`: uint16 (H, W, C)."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, channels = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("PNG", "1", {}), ("PNG", "L", {}), ("PNG", "LA", {}), ("PNG", "RGB", {}), ("PNG", "RGBA", {}),
        ("PNG", "P", {}), ("PNG", "P", {"bits": 2}), ("PNG", "P", {"transparency": bytes(range(100))}),
        ("PNG", "RGB", {"transparency": (1, 2, 3)}), ("GIF", "P", {}), ("GIF", "L", {}),
        ("WEBP", "RGB", {}), ("WEBP", "RGBA", {"lossless": True}),
    ],
)  # fmt: skip
def test_what_is_no_jpeg_has_the_pixels_that_torchvision_gives_it(kind, mode, options):
    noise = np.random.default_rng(0).integers(0, 256, (20, 30, 4), dtype=np.uint8)
    image = Image.fromarray(noise).convert(mode)
    if mode == "P":
        image = Image.fromarray(noise[..., :3]).quantize(4 if "bits" in options else 256)
    data = np.frombuffer(saved(kind, image, **options), np.uint8).copy()
    ours = decode(data)
    assert ours.permute(1, 2, 0).is_contiguous()
    assert torch.equal(ours, decode_image(torch.from_numpy(data), mode=ImageReadMode.RGB))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_png_of_16_bits_is_scaled_to_8(channels):
    values = np.arange(65_536, dtype=np.uint16).reshape(256, 256, 1).repeat(channels, axis=2)
    ours = decode(np.frombuffer(png_of_16_bits(values), np.uint8).copy())
    assert (ours.dtype, tuple(ours.shape)) == (torch.uint8, (3, 256, 256))
    exact = values[..., :1].transpose(2, 0, 1) / 257
    assert np.abs(ours.numpy() - exact).max() <= (0.5 if channels == 1 else 1)  # Pillow halves all but grey itself


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no image of JPEG, PNG, GIF, WEBP"),
        (b"no image at all", "no image of JPEG, PNG, GIF, WEBP"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no image of JPEG, PNG, GIF, WEBP"),
        (saved("JPEG")[:300], "Image is incomplete or truncated"),
        (b"\xff\xd8\xff", "Image is incomplete or truncated"),
        (saved("PNG")[:100], "image file is truncated"),
        (saved("PNG")[:60].replace(b"IDAT", b"I\0AT"), ".+"),
        (saved("GIF")[:300], ".+"),
        (saved("WEBP")[:60], ".+"),
        (png_of_16_bits(np.zeros((1, 1, 1), np.uint16)).replace(b"\0\0\0\1" * 2, b"\0\1\0\0" * 2), ".+"),
    ],
    ids=["empty", "text", "eps", "jpeg", "jpeg's mark", "png", "png's chunk", "gif", "webp", "size"],
)
def test_a_corrupt_file_is_named_in_one_line_with_the_decoder_s_reason(tmp_path, content, reason):
    (tmp_path / "bad.JPEG").write_bytes(content)
    with pytest.raises(DataError) as caught:
        ImageIndex.build(tmp_path, [("bad.JPEG", 0)]).check(0)
    assert re.fullmatch(
        rf"{tmp_path}/bad\.JPEG: cannot be decoded \(({reason})[^/]*\); replace the file", str(caught.value)
    )


def test_an_image_that_is_too_large_to_be_true_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    smooth_image().save(tmp_path / "bomb.png")
    with pytest.raises(DataError, match=r"bomb\.png: cannot be decoded \(Image size \(480 pixels\)"):
        ImageIndex.build(tmp_path, [("bomb.png", 0)]).check(0)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"absent\.JPEG: cannot be read"):
        ImageIndex.build(tmp_path, [("absent.JPEG", 0)]).check(0)


def test_no_damaged_file_ends_the_process():
    """Hundreds of damaged files of every kind, in a process of their own: libpng's way out of them is a crash."""
    script = f"""
import io, importlib.util, sys
import numpy as np
from PIL import Image
sys.path.insert(0, {str(data_dir("workloads"))!r})
from image_classification.decoding import decode
rng = np.random.default_rng(0)
image = Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8))
files = []
for kind, mode, options in [("PNG", "RGB", {{}}), ("PNG", "L", {{}}), ("JPEG", "RGB", {{}}), ("JPEG", "CMYK", {{}}),
                            ("JPEG", "RGB", {{"progressive": True}}), ("GIF", "L", {{}}), ("WEBP", "RGB", {{}})]:
    stream = io.BytesIO()
    image.convert(mode).save(stream, kind, **options)
    files.append(np.frombuffer(stream.getvalue(), np.uint8))
refused = 0
for decoder in ["torchvision", "simplejpeg"][: 1 + (importlib.util.find_spec("simplejpeg") is not None)]:
    for number in range(700):
        data = files[number % 7].copy()
        end = len(data) if number % 2 else 600  # where the tables are
        data[rng.integers(2, end, 1 + number % 4)] ^= np.uint8(1 + number % 255)
        try:
            decode(data, decoder)
        except RuntimeError as error:
            refused += 1
print(refused)
"""
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stderr[-500:]
    assert int(ended.stdout) > 200  # of 700; how many depends on the release of Pillow that writes the files


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


def test_labels_follow_the_development_kit_though_the_index_is_cached(imagenet):
    flatten_val(imagenet)
    truth, meta = imagenet / "ILSVRC2012_validation_ground_truth.txt", imagenet / "meta.mat"
    assert read_index(imagenet, 2).val.labels.tolist() == [0, 0, 1, 1]
    found = truth.stat()
    truth.write_text("1\n2\n1\n2\n")
    os.utime(truth, ns=(found.st_atime_ns, found.st_mtime_ns))  # of the same length and time
    assert read_index(imagenet, 2).val.labels.tolist() == [1, 0, 1, 0]
    kind = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("num_children", "O")]
    synsets = np.array([(1, "n01440764", 0), (2, "n01443537", 0)], kind)
    savemat(meta, {"synsets": synsets})
    assert read_index(imagenet, 2).val.labels.tolist() == [0, 1, 0, 1]
    kit = imagenet / "ILSVRC2012_devkit_t12" / "data"
    kit.mkdir(parents=True)
    truth.rename(kit / truth.name)
    meta.rename(kit / meta.name)
    assert read_index(imagenet, 2).val.labels.tolist() == [0, 1, 0, 1]
    (kit / truth.name).write_text("1\n1\n1\n1\n")
    assert read_index(imagenet, 2).val.labels.tolist() == [0, 0, 0, 0]


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


def test_digits_that_two_prepare_at_once_are_written_once(tmp_path):
    with ThreadPoolExecutor(2) as pool:
        said = list(pool.map(lambda _: digits_to_jpeg(tmp_path / "mini", RULES.problems["mini"]), range(2)))
    assert sorted("wrote" in line for line in said) == [False, True]
    assert sum("prepared already" in line for line in said) == 1
    assert os.listdir(tmp_path) == ["mini"]


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
