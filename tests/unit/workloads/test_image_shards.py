import importlib.util
import io
import os
import pickle
import signal
import subprocess
import sys
import tarfile

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from hpcai500.errors import DataError, MachineError, OccupiedError
from hpcai500.files import data_dir, sole_writer
from hpcai500.spec.workload import load_rules
from hpcai500.train.loading import Loader
from hpcai500.train.workload import SampleKey

sys.path.insert(0, str(data_dir("workloads")))
from image_classification.data import GROUND_TRUTH, META, DataSettings, read_index
from image_classification.data_tools import packing
from image_classification.data_tools.prepare import prepare, verify
from image_classification.data_tools.tars import TRAIN_TAR, VAL_TAR
from image_classification.dataset import open_dataset
from image_classification.decoding import choose_decoder, decode
from image_classification.views import EncodedBatch, ImageReader

CPU = torch.device("cpu")
WNIDS = ("n01440764", "n01443537")
MINI = load_rules(data_dir("workloads") / "image_classification").problems["mini"].problem
SETTINGS = DataSettings(
    image_size=16,
    crop_area=(0.1, 1.0),
    crop_aspect=(0.75, 1.33),
    flip_probability=0.5,
    eval_resize=20,
    decoder="auto",
)
CPU_DECODERS = ["torchvision"] + ["simplejpeg"] * (importlib.util.find_spec("simplejpeg") is not None)


def photograph(number=0, width=60, height=45, mode="RGB"):
    whole = Image.fromarray(load_sample_images().images[number % 2])
    return (
        whole.crop((7 * number, 5 * number, 7 * number + 4 * width, 5 * number + 4 * height))
        .resize((width, height))
        .convert(mode)
    )


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(packing, "IMAGES_PER_SHARD", 4)


@pytest.fixture
def tree(tmp_path):
    """Two classes, 5 training and 2 validation images in each: photographs, one of 1 pixel, one CMYK, one PNG."""
    for split, count in (("train", 5), ("val", 2)):
        for label, wnid in enumerate(WNIDS):
            folder = tmp_path / "tree" / split / wnid
            folder.mkdir(parents=True)
            for number in range(count):
                photograph(2 * number + label).save(folder / f"{wnid}_{number}.JPEG", quality=90)
    train = tmp_path / "tree" / "train" / WNIDS[0]
    photograph(3, 1, 1).save(train / f"{WNIDS[0]}_1.JPEG", quality=90)
    photograph(4, mode="CMYK").save(train / f"{WNIDS[0]}_2.JPEG", quality=90)
    photograph(5).save(train / f"{WNIDS[0]}_3.JPEG", format="PNG")
    return tmp_path / "tree"


def packed(tree):
    folder = tree.parent / "packed"
    return folder, list(prepare(tree, folder, 2))


def test_shards_hold_the_files_byte_for_byte_in_the_same_order_under_the_same_digest(tree):
    folder, lines = packed(tree)
    assert [path.name for path in sorted(folder.iterdir())] == [
        "index.h5", "train-0000.h5", "train-0001.h5", "train-0002.h5", "val-0000.h5",
    ]  # fmt: skip
    assert "4 images" in lines[0]
    for here, there in zip(open_dataset(folder, 2), read_index(tree, 2), strict=True):
        assert here.digest == there.digest
        assert here.labels.tolist() == there.labels.tolist()
        for number in range(len(there)):
            assert here.name(number) == there.name(number)
            assert here.read(number).tobytes() == there.path(number).read_bytes()


def test_a_shard_can_be_read_by_anyone_s_hdf5(tree):
    folder, _ = packed(tree)
    with h5py.File(folder / "train-0001.h5") as file:
        lengths = file["lengths"][:]
        second = file["files"][lengths[0] : lengths[0] + lengths[1]]
    assert second.tobytes() == read_index(tree, 2).train.path(5).read_bytes()


def test_files_and_shards_give_the_same_batches_in_this_process_and_in_others(tree):
    folder, _ = packed(tree)
    keys = [[SampleKey(1, number) for number in order] for order in ([9, 0, 4, 2], [3, 1, 7, 8])]
    whole = []
    for place in (tree, folder):
        reader = ImageReader(open_dataset(place, 2).train, SETTINGS, seed=3)
        for num_workers in (0, 1):
            batches = list(Loader(reader, num_workers=num_workers, pin_memory=False).read(keys))
            whole.append((torch.cat([b.images for b in batches]), torch.cat([b.labels for b in batches])))
    assert whole[0][0].dtype == torch.uint8
    assert whole[0][0].is_contiguous(memory_format=torch.channels_last)
    for images, labels in whole[1:]:
        assert torch.equal(images, whole[0][0])
        assert torch.equal(labels, whole[0][1])


def test_the_index_is_mapped_and_crosses_to_another_process_as_a_path(tree):
    folder, _ = packed(tree)
    train = open_dataset(folder, 2).train
    assert all(isinstance(held, np.memmap) for held in (train.names, train.ends, train.labels, train.offsets))
    sent = pickle.dumps(train)
    assert len(sent) < 500
    assert pickle.loads(sent).read(3).tobytes() == train.read(3).tobytes()


def killed_at_its_second_shard(tree):
    folder = tree.parent / "packed"
    script = f"""
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {str(data_dir("workloads"))!r})
from image_classification.data_tools import packing, prepare
packing.IMAGES_PER_SHARD = 4
copy, calls = packing._copy, []
def copy_and_die(*args):
    digests = copy(*args)
    calls.append(1)
    if len(calls) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return digests
packing._copy = copy_and_die
list(prepare.prepare(Path({str(tree)!r}), Path({str(folder)!r}), 2))
"""
    ended = subprocess.run([sys.executable, "-c", script], check=False, timeout=60)
    assert ended.returncode == -signal.SIGKILL
    return folder


def test_packing_goes_on_after_a_kill_with_the_shards_that_are_finished(tree):
    folder = killed_at_its_second_shard(tree)
    assert sorted(os.listdir(folder)) == [".preparing", ".train-0001.h5.partial", "train-0000.h5"]
    with pytest.raises(DataError, match=r"packed: its packing is unfinished; run `hpcai500 data prepare` again"):
        open_dataset(folder, 2)
    (folder / "train-0000.h5").rename(folder / "kept")
    with pytest.raises(DataError, match="its packing is unfinished"):
        open_dataset(folder, 2)
    (folder / "kept").rename(folder / "train-0000.h5")
    written = (folder / "train-0000.h5").stat().st_mtime_ns
    _, lines = packed(tree)
    assert "prepared already" in lines[0]
    assert (folder / "train-0000.h5").stat().st_mtime_ns == written
    assert not any(name.startswith(".") for name in os.listdir(folder))
    assert [p.digest for p in open_dataset(folder, 2)] == [p.digest for p in read_index(tree, 2)]


def test_a_shard_of_files_that_have_changed_is_written_again(tree):
    folder, _ = packed(tree)
    photograph(8).save(tree / "train" / WNIDS[1] / f"{WNIDS[1]}_4.JPEG", quality=50)
    _, lines = packed(tree)
    assert ["prepared already" in line for line in lines[:4]] == [True, True, False, True]
    train = open_dataset(folder, 2).train
    assert train.read(9).tobytes() == read_index(tree, 2).train.path(9).read_bytes()


def test_shards_that_a_smaller_source_leaves_over_are_removed_and_other_files_stay(tree):
    folder, _ = packed(tree)
    (folder / "train-0007.h5").write_bytes((folder / "train-0000.h5").read_bytes()[:300])
    for name in ("train-0008.h5", "mine.h5"):
        with h5py.File(folder / name, "w") as file:
            file["mine"] = 1
    for wnid in WNIDS:
        for number in (2, 3, 4):
            (tree / "train" / wnid / f"{wnid}_{number}.JPEG").unlink()
    _, lines = packed(tree)
    assert [line for line in lines if "removed" in line] == [
        f"{folder}/train-000{number}.h5: removed, since the source has fewer images than before" for number in (1, 2)
    ]
    left = [line.split(": ")[0] for line in lines if line.endswith("is no part of the data set: remove it")]
    assert left == [f"{folder}/train-0007.h5", f"{folder}/train-0008.h5"]
    assert sorted(os.listdir(folder)) == [
        "index.h5", "mine.h5", "train-0000.h5", "train-0007.h5", "train-0008.h5", "val-0000.h5",
    ]  # fmt: skip
    assert [p.digest for p in open_dataset(folder, 2)] == [p.digest for p in read_index(tree, 2)]


def test_a_second_process_that_packs_there_is_told_of_the_first(tree):
    folder = tree.parent / "packed"
    script = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(data_dir("workloads"))!r})
from image_classification.data_tools.prepare import prepare
list(prepare(Path({str(tree)!r}), Path({str(folder)!r}), 2))
"""
    with sole_writer(folder):
        ended = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60
        )
        assert f"MachineError: {folder}: another process is preparing data there" in ended.stderr
    assert not list(folder.iterdir())


def swapped(data):
    """Another image file of equal length: its end marker is followed by what is missing."""
    stream = io.BytesIO()
    photograph(7, 20, 15).save(stream, "JPEG", quality=50)
    assert len(stream.getvalue()) < len(data)
    return stream.getvalue().ljust(len(data), b"\0")


def test_a_shard_is_written_again_if_a_file_was_replaced_by_another_of_its_length(tree):
    folder, _ = packed(tree)
    path = tree / "train" / WNIDS[1] / f"{WNIDS[1]}_0.JPEG"
    path.write_bytes(swapped(path.read_bytes()))
    _, lines = packed(tree)
    assert ["prepared already" in line for line in lines[:4]] == [True, False, True, True]
    assert open_dataset(folder, 2).train.read(5).tobytes() == path.read_bytes()


@pytest.mark.parametrize("table", ["files", "lengths", "sha256"])
def test_a_shard_in_which_a_bit_flipped_is_written_again(tree, table):
    folder, _ = packed(tree)
    shard = folder / "train-0001.h5"
    content = shard.read_bytes()
    with h5py.File(shard) as file:
        place = file[table].id.get_offset() + 33
    shard.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
    _, lines = packed(tree)
    assert ["prepared already" in line for line in lines[:4]] == [True, False, True, True]
    assert shard.read_bytes() == content


def test_after_a_kill_no_index_is_left_of_shards_that_were_replaced(tree):
    folder, _ = packed(tree)
    for number in (0, 4):  # of shards 1 and 2
        photograph(8, 70, 50).save(tree / "train" / WNIDS[1] / f"{WNIDS[1]}_{number}.JPEG", quality=50)
    killed_at_its_second_shard(tree)
    with pytest.raises(DataError, match="run `hpcai500 data prepare`"):
        open_dataset(folder, 2)
    _, lines = packed(tree)
    assert ["prepared already" in line for line in lines[:4]] == [True, True, False, True]
    for here, there in zip(open_dataset(folder, 2), read_index(tree, 2), strict=True):
        assert all(here.read(n).tobytes() == there.path(n).read_bytes() for n in range(len(there)))


@pytest.mark.parametrize("num_bytes", [0, 300, 3_000, -1])
def test_a_truncated_shard_is_named_when_it_is_verified_and_written_again(tree, num_bytes):
    folder, _ = packed(tree)
    shard = folder / "train-0000.h5"
    content = shard.read_bytes()
    shard.write_bytes(content[:num_bytes])
    problem = MINI.model_copy(update={"num_train_samples": 10, "num_eval_samples": 4})
    with pytest.raises(DataError, match=r"train-0000\.h5: cannot be read .*; prepare the data set again"):
        list(verify(folder, 2, problem))
    _, lines = packed(tree)
    assert ["prepared already" in line for line in lines[:4]] == [False, True, True, True]
    assert shard.read_bytes() == content


@pytest.mark.parametrize("table", ["names", "ends", "labels", "firsts", "lengths"])
def test_an_index_in_which_a_bit_flipped_is_named_when_it_is_verified(tree, table):
    folder, _ = packed(tree)
    with h5py.File(folder / "index.h5") as file:
        place = file["train"][table].id.get_offset()
    with (folder / "index.h5").open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1]))
    problem = MINI.model_copy(update={"num_train_samples": 10, "num_eval_samples": 4})
    with pytest.raises(DataError, match=r"index\.h5: is not of train-000\d\.h5; prepare the data set again"):
        list(verify(folder, 2, problem))


@pytest.mark.parametrize("table", ["names", "ends", "labels", "firsts", "offsets", "lengths"])
def test_an_index_without_a_table_cannot_be_read(tree, table):
    folder, _ = packed(tree)
    with h5py.File(folder / "index.h5", "r+") as file:
        file["val"].move(table, table[::-1])
    with pytest.raises(DataError, match=r"index\.h5: cannot be read .*; prepare the data set again"):
        open_dataset(folder, 2)


def test_a_corrupt_file_is_named_when_it_is_packed_and_a_corrupt_shard_when_it_is_checked(tree):
    bad = tree / "train" / WNIDS[1] / f"{WNIDS[1]}_0.JPEG"
    good = bad.read_bytes()
    for content in (b"", good[: len(good) // 2]):
        bad.write_bytes(content)
        with pytest.raises(DataError, match=rf"{bad}: cannot be decoded"):
            packed(tree)
    bad.write_bytes(good)
    folder, _ = packed(tree)
    problem = MINI.model_copy(update={"num_train_samples": 10, "num_eval_samples": 4})
    assert len(list(verify(folder, 2, problem))) == 2
    train = open_dataset(folder, 2).train
    with (folder / "train-0001.h5").open("r+b") as file:
        file.seek(int(train.offsets[5]))
        file.write(b"\0\0\0\0")
    place = rf"train-0001\.h5: {WNIDS[1]}/{WNIDS[1]}_0\.JPEG"
    with pytest.raises(DataError, match=rf"{place}: cannot be decoded .*; prepare the data set again"):
        ImageReader(train, SETTINGS, seed=0)([SampleKey(1, 5)])
    with pytest.raises(DataError, match=rf"{place}: differs from what was packed"):
        list(verify(folder, 2, problem))
    with (folder / "train-0001.h5").open("r+b") as file:
        file.seek(int(train.offsets[5]))
        file.write(good[:4])
        file.seek(int(train.offsets[6]) + len(train.read(6)) - 3)  # a byte before the end marker decodes all the same
        file.write(b"\x55")
    with pytest.raises(DataError, match=r"_1\.JPEG: differs from what was packed"):
        list(verify(folder, 2, problem))
    (folder / "train-0002.h5").unlink()
    with pytest.raises(DataError, match=r"train-0002\.h5: cannot be opened"):
        open_dataset(folder, 2)


def test_shards_of_another_number_of_classes_or_among_folders_are_refused(tree):
    folder, _ = packed(tree)
    with pytest.raises(DataError, match="2 classes, the model has 1000"):
        open_dataset(folder, 1000)
    (tree.parent / "other" / "train").mkdir(parents=True)
    with pytest.raises(OccupiedError, match="holds folders of files"):
        list(prepare(tree, tree.parent / "other", 2))


def test_tars_are_packed_as_their_files_would_be(tree):
    from test_image_data import flatten_val

    flatten_val(tree)
    folder = tree.parent / "tars"
    folder.mkdir()
    for name in (GROUND_TRUTH, META):
        (folder / name).write_bytes((tree / name).read_bytes())
    with tarfile.open(folder / TRAIN_TAR, "w") as outer:
        for wnid in reversed(WNIDS):
            stream = io.BytesIO()
            with tarfile.open(fileobj=stream, mode="w") as inner:
                for path in sorted((tree / "train" / wnid).iterdir(), reverse=True):
                    inner.add(path, path.name)
            member = tarfile.TarInfo(f"{wnid}.tar")
            member.size = len(stream.getvalue())
            outer.addfile(member, io.BytesIO(stream.getvalue()))
    with tarfile.open(folder / VAL_TAR, "w") as outer:
        for path in sorted((tree / "val").iterdir(), reverse=True):
            outer.add(path, path.name)
    list(prepare(folder, tree.parent / "from_tars", 2))
    for here, there in zip(open_dataset(tree.parent / "from_tars", 2), read_index(tree, 2), strict=True):
        assert here.digest == there.digest
        assert [here.read(n).tobytes() for n in range(len(there))] == [
            there.path(n).read_bytes() for n in range(len(there))
        ]


@pytest.mark.parametrize("decoder", CPU_DECODERS)
@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("RGB", {"subsampling": "4:2:0"}), ("RGB", {"subsampling": "4:2:2"}), ("RGB", {"subsampling": "4:4:4"}),
        ("RGB", {"progressive": True}), ("RGB", {"quality": 30}), ("L", {}), ("CMYK", {}),
    ],
)  # fmt: skip
def test_every_decoder_on_the_cpu_is_within_one_level_of_pillow(mode, options, decoder):
    stream = io.BytesIO()
    photograph(1, 253, 187, mode).save(stream, "JPEG", **{"quality": 90, **options})
    data = np.frombuffer(stream.getvalue(), np.uint8).copy()
    ours = decode(data, decoder).permute(1, 2, 0).numpy().astype(int)
    theirs = np.asarray(Image.open(stream).convert("RGB")).astype(int)
    assert np.abs(ours - theirs).max() <= 1
    assert np.array_equal(ours, decode(data).permute(1, 2, 0).numpy())


@pytest.mark.parametrize("decoder", CPU_DECODERS)
def test_a_damaged_file_is_refused_whichever_decoder_reads_it(decoder):
    stream = io.BytesIO()
    photograph().save(stream, "JPEG")
    for content in (b"", b"no image", stream.getvalue()[:400]):
        with pytest.raises((RuntimeError, ValueError)):
            decode(np.frombuffer(content, np.uint8).copy(), decoder)


def test_a_decoder_that_cannot_be_used_is_refused(monkeypatch):
    assert choose_decoder("auto", CPU) in ("simplejpeg", "torchvision")
    with pytest.raises(MachineError, match="nvjpeg decodes only on a GPU"):
        choose_decoder("nvjpeg", CPU)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert choose_decoder("auto", CPU) == "torchvision"
    with pytest.raises(MachineError, match="not installed"):
        choose_decoder("simplejpeg", CPU)
    with pytest.raises(MachineError, match="dali: it is not installed"):
        choose_decoder("dali", CPU)


def test_dali_gives_the_same_crops_whatever_the_size_of_the_batch(tree):
    pytest.importorskip("nvidia.dali", reason="DALI is not installed: pip install hpcai500[dali]")
    train = read_index(tree, 2).train
    reader = ImageReader(train, SETTINGS, 3, choose_decoder("dali", CPU))
    for numbers in ((9, 2, 3, 0), (1,), (9, 2, 3, 0, 4, 5), (7, 8, 6)):
        keys = [SampleKey(1, number) for number in numbers]
        batch, here = reader.decode_on(CPU, reader(keys)), ImageReader(train, SETTINGS, 3)(keys)
        assert torch.equal(batch.images, here.images)
        assert torch.equal(batch.labels, here.labels)


@pytest.mark.parametrize("decoder", ["simplejpeg", "dali"])
def test_nobody_turns_an_image_by_its_exif_tag(tree, decoder):
    if decoder == "dali":
        pytest.importorskip("nvidia.dali", reason="DALI is not installed: pip install hpcai500[dali]")
    else:
        pytest.importorskip("simplejpeg", reason="simplejpeg is not installed: pip install hpcai500[fast]")
    turned = Image.Exif()
    turned[0x0112] = 6
    train = read_index(tree, 2).train
    photograph(1, 200, 120).save(train.path(2), "JPEG", quality=90, exif=turned)
    keys = [SampleKey(1, 2), SampleKey(2, 2)]
    reader, expected = ImageReader(train, SETTINGS, 3, decoder), ImageReader(train, SETTINGS, 3)(keys)
    batch = reader(keys) if decoder == "simplejpeg" else reader.decode_on(CPU, reader(keys))
    assert torch.equal(batch.images, expected.images)


def test_what_dali_refuses_is_named_by_its_file(tree):
    pytest.importorskip("nvidia.dali", reason="DALI is not installed: pip install hpcai500[dali]")
    train = read_index(tree, 2).train
    train.path(2).write_bytes(b"no image")
    reader = ImageReader(train, SETTINGS, None, "dali")
    with pytest.raises(DataError, match=train.path(2).name):
        reader.decode_on(CPU, reader([1, 2]))
    assert reader.decode_on(CPU, reader([1, 3])).images.shape[0] == 2


def test_files_sent_to_be_decoded_elsewhere_give_the_same_crops(tree):
    """The path of nvJPEG up to the decoder itself, which needs a GPU: on the CPU its fallback decodes."""
    train = read_index(tree, 2).train
    keys = [SampleKey(1, number) for number in (9, 2, 3, 0)]
    reader = ImageReader(train, SETTINGS, 3, "nvjpeg")
    encoded = reader(keys)
    assert isinstance(encoded, EncodedBatch)
    batch = reader.decode_on(CPU, encoded)
    here = ImageReader(train, SETTINGS, 3)(keys)
    assert torch.equal(batch.images, here.images)
    assert torch.equal(batch.labels, here.labels)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="nvJPEG needs a GPU")
def test_nvjpeg_is_near_the_other_decoders(tree):
    """It enlarges colour differences in its own way: single pixels at edges differ by more."""
    train = read_index(tree, 2).train
    keys = [SampleKey(1, number) for number in (9, 6, 5, 0)]
    reader = ImageReader(train, SETTINGS, 3, "nvjpeg")
    batch = reader.decode_on(torch.device("cuda"), reader(keys))
    difference = batch.images.cpu().float() - ImageReader(train, SETTINGS, 3)(keys).images.float()
    assert difference.abs().mean() <= 3
