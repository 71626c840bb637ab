import os

import h5py
import numpy as np
import pytest

from hpcai500.errors import DataError
from hpcai500.micro import storage
from hpcai500.micro.storage import (
    drop_from_cache,
    is_cached,
    measure_metadata,
    measure_prepared,
    measure_reads,
    measure_storage,
    write_frames,
    write_images,
)


@pytest.fixture
def small(monkeypatch):
    """Frames of 48 KiB and 70 images, so that nothing takes long."""
    monkeypatch.setattr(storage, "FRAME", (2, 64, 96))
    monkeypatch.setattr(storage, "_NUM_JPEGS", 70)


def test_every_kind_of_access_is_measured_and_nothing_is_left_behind(tmp_path, small):
    found = measure_storage(tmp_path / "scratch", budget_sec=0.2)
    assert [sample.metric for sample in found.samples] == [
        "storage_hdf5_sequential_bytes_per_sec", "storage_hdf5_random_bytes_per_sec",
        "storage_jpeg_sequential_bytes_per_sec", "storage_jpeg_random_bytes_per_sec",
        "storage_metadata_create_per_sec", "storage_metadata_stat_per_sec", "storage_metadata_unlink_per_sec",
    ]  # fmt: skip
    assert found.correct
    assert found.samples[0].bytes == 4 * 2 * 64 * 96 * 4
    assert os.listdir(tmp_path / "scratch") == []


def test_what_comes_back_changed_is_wrong_and_its_file_is_named(tmp_path, small):
    frames, images = write_frames(tmp_path / "frames.h5"), write_images(tmp_path / "images")
    with h5py.File(tmp_path / "frames.h5", "a") as file:
        file["images"][2, 0, 0, 0] += 1.0
    content = bytearray(images[5].path.read_bytes())
    content[100] ^= 1
    images[5].path.write_bytes(content)
    found = measure_reads("storage", frames, images, 0.0)
    assert [sample.correct for sample in found.samples] == [False] * 4
    assert "wrong bytes in frames.h5" in found.samples[0].detail
    assert "wrong bytes in 0005.jpg" in found.samples[3].detail


def test_a_file_that_was_dropped_is_no_longer_in_memory(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(os.urandom(1 << 20))
    path.read_bytes()
    if is_cached(path) is None:
        pytest.skip("this file system does not say what is in memory")
    assert is_cached(path)
    drop_from_cache({path})
    if is_cached(path):
        pytest.skip("this file system lies in memory")
    path.read_bytes()
    assert is_cached(path)


def test_a_prepared_data_set_is_read_where_it_lies(tmp_path):
    (tmp_path / "train").mkdir()
    with h5py.File(tmp_path / "climo_1980.h5", "w") as file:
        file["images"] = np.ones((3, 2, 4, 5), np.float32)
    (tmp_path / "train" / "a.JPEG").write_bytes(b"x" * 100)
    found = measure_prepared(tmp_path, budget_sec=0.0)
    assert [sample.bytes for sample in found.samples] == [480.0, 480.0, 100.0, 100.0]
    assert found.samples[0].metric == "prepared_hdf5_sequential_bytes_per_sec"


def test_only_what_is_there_is_measured(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"x" * 100)
    found = measure_prepared(tmp_path, budget_sec=0.0)
    assert [skipped.name for skipped in found.skipped] == ["prepared_hdf5_sequential", "prepared_hdf5_random"]
    with pytest.raises(DataError, match=r"no \.h5"):
        measure_prepared(tmp_path / "none", budget_sec=0.0)


def test_metadata_operations_are_counted_one_by_one(tmp_path):
    found = measure_metadata(tmp_path / "files", 0.0)
    assert [sample.unit for sample in found.samples] == ["1/s"] * 3
    assert all(sample.num_repeats == 3 for sample in found.samples)
