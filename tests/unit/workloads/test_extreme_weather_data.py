"""Extreme Weather Analytics: the published files, their check, the prepared ones, the synthetic ones, and reading."""

import hashlib
import json
import multiprocessing
import os
import pickle
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest

from hpcai500.errors import DataError, OccupiedError, SpecError
from hpcai500.files import data_dir, sole_writer
from hpcai500.spec.models import parse
from hpcai500.spec.workload import load_rules

sys.path.insert(0, str(data_dir("workloads")))
from channel_baseline import Baseline, iou
from extreme_weather import tasks
from extreme_weather.boxes import real_rows
from extreme_weather.data_tools.atmosphere import Grid, background
from extreme_weather.data_tools.prepare import prepare
from extreme_weather.data_tools.storms import PHENOMENA, tropical_cyclone
from extreme_weather.data_tools.synthesize import synthesize
from extreme_weather.data_tools.synthetic_frame import make_frame
from extreme_weather.frames import Frames
from extreme_weather.layout import CHANNELS, DataSettings, read_manifest, verify
from extreme_weather.staging import stage, staged_folder

HEIGHT, WIDTH = 32, 48
SETTINGS = {
    "train_years": [1980], "eval_years": [1981], "test_years": [1982], "box_order": "auto", "class_base": "auto",
    "frame_height": HEIGHT, "frame_width": WIDTH, "num_synthetic_frames": 4, "storage": "float32",
}  # fmt: skip
TALL = [2, 3, 30, 10]
"""y from 2 to 30, x from 3 to 10, as (ymin, xmin, ymax, xmax); read as (ymin, ymax, xmin, xmax) it makes no box."""
ANY_ORDER = [1, 2, 3, 4]


def settings_of(**changes) -> DataSettings:
    return parse(DataSettings, SETTINGS | changes, "data")


def values_of(num_frames, seed=0):
    noise = np.random.default_rng(seed).standard_normal((num_frames, len(CHANNELS), HEIGHT, WIDTH))
    offset = np.array([1e-7, 1e5, 1e5, 0.01, 220, 250, 20, 280, 280, 1, 1, 0, 0, 100, 12_000, 60])[:, None, None]
    return (offset * (1 + 0.01 * noise) + 0.001 * offset.clip(1e-8) * noise).astype(np.float32)


def boxes_of(num_frames, rows):
    """`rows`: (frame, row of the frame, five numbers)."""
    boxes = np.full((num_frames, 15, 5), -1, np.int32)
    for frame, row, values in rows:
        boxes[frame, row] = values
    return boxes


ROWS = ((0, 0, [*TALL, 0]), (0, 1, [*ANY_ORDER, 3]), (2, 0, [0, 0, HEIGHT, WIDTH, 1]))


def write(path, images=None, rows=ROWS, chunks=True, **options) -> Path:
    images = values_of(3) if images is None else images
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=images, chunks=chunks, **({"compression": "gzip"} | options))
        file.create_dataset("boxes", data=boxes_of(len(images), rows), compression="gzip")
    return path


@pytest.fixture
def published(tmp_path):
    """Three years as they are published: gzip, and the chunks that h5py chooses."""
    for seed, year in enumerate((1980, 1981, 1982)):
        write(tmp_path / "published" / f"climo_{year}.h5", values_of(3, seed))
    return tmp_path / "published"


def verified(folder, **changes):
    found = list(verify(settings_of(**changes), folder))
    return read_manifest(folder), found


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.h5")}


class TestSettings:
    @pytest.mark.parametrize("changes", [{"eval_years": [1980]}, {"train_years": [1979, 1979]}])
    def test_overlapping_years_are_refused(self, changes):
        with pytest.raises(SpecError, match=r"must not overlap, and 19.. is there twice"):
            settings_of(**changes)

    @pytest.mark.parametrize("problem", ["full", "mini"])
    def test_the_shipped_settings_parse(self, problem):
        rules = load_rules(data_dir("workloads") / "extreme_weather")
        parse(DataSettings, rules.problems[problem].data, "data")


class TestBoxes:
    def manifest(self, tmp_path, rows, other_rows=(), **changes):
        folder = tmp_path / "data"
        write(folder / "climo_1980.h5", rows=rows)
        write(folder / "climo_1981.h5", values_of(3, 1), rows=other_rows)
        return verified(folder, **changes)

    def test_the_published_order_is_detected(self, tmp_path):
        manifest, found = self.manifest(tmp_path, [(1, 0, [*TALL, 0])])
        assert manifest.files[0].box_order == "yxyx"
        assert "box columns yxyx (the only one that fits)" in found[0]

    def test_the_converters_order_and_numbering_are_detected(self, tmp_path):
        manifest, found = self.manifest(tmp_path, [(1, 0, [2, 30, 3, 10, 4]), (1, 1, [1, 2, 40, 48, 1])])
        assert (manifest.files[0].box_order, manifest.files[0].class_base) == ("yyxx", 1)
        assert manifest.files[0].boxes_by_class == (1, 0, 0, 1)
        assert "classes from 1 (seen in the file)" in found[0]
        frames = Frames(tmp_path / "data", manifest, [1980])
        assert frames.read(1).boxes.tolist() == [[3, 2, 10, 30], [40, 1, 48, 2]]
        assert frames.read(1).labels.tolist() == [3, 0]

    def test_where_both_orders_fit_the_published_one_is_taken_and_said(self, tmp_path):
        manifest, found = self.manifest(tmp_path, [(0, 0, [1, 2, 3, 4, 0])])
        assert manifest.files[0].box_order == "yxyx"
        assert "both fit; the published one is taken" in found[0]

    def test_a_forced_order_decides_where_both_fit(self, tmp_path):
        manifest, _ = self.manifest(tmp_path, [(0, 0, [1, 2, 3, 4, 0])], box_order="yyxx")
        frames = Frames(tmp_path / "data", manifest, [1980])
        assert frames.read(0).boxes.tolist() == [[3, 1, 4, 2]]

    def test_a_row_that_fits_no_order_is_refused_with_its_place(self, tmp_path):
        message = r"climo_1980.h5: boxes\[2, 7\] = \[9, 9, 3, 3, 0\] fits neither"
        with pytest.raises(DataError, match=message):
            self.manifest(tmp_path, [(0, 0, [*TALL, 0]), (2, 7, [9, 9, 3, 3, 0])])

    def test_rows_that_fit_different_orders_are_refused_together(self, tmp_path):
        with pytest.raises(DataError, match=r"boxes\[1, 0\] = .* is no box .*, and .*boxes\[0, 0\] = .* no box"):
            self.manifest(tmp_path, [(0, 0, [*TALL, 0]), (1, 0, [2, 30, 3, 10, 0])])

    def test_a_box_beyond_the_frame_is_refused(self, tmp_path):
        with pytest.raises(DataError, match=r"boxes\[0, 0\] = \[0, 0, 33, 49, 0\]"):
            self.manifest(tmp_path, [(0, 0, [0, 0, HEIGHT + 1, WIDTH + 1, 0])])

    def test_what_contradicts_a_forced_order_is_refused(self, tmp_path):
        with pytest.raises(DataError, match=r"boxes\[0, 0\] = .* is no box \(ymin, ymax, xmin, xmax\)"):
            self.manifest(tmp_path, [(0, 0, [*TALL, 0])], box_order="yyxx")

    def test_a_file_with_classes_1_to_3_follows_the_others(self, tmp_path):
        manifest, found = self.manifest(tmp_path, [(0, 0, [*TALL, 2])], [(0, 0, [*TALL, 4])])
        assert [entry.class_base for entry in manifest.files] == [1, 1]
        assert "1 to 3 in the file; taken from the others" in found[0]

    def test_classes_1_to_3_everywhere_are_the_published_ones_and_said(self, tmp_path):
        manifest, found = self.manifest(tmp_path, [(0, 0, [*TALL, 2])], [(0, 0, [*TALL, 1])])
        assert [entry.class_base for entry in manifest.files] == [0, 0]
        assert "the published one is taken" in found[1]
        manifest, _ = self.manifest(tmp_path, [(0, 0, [*TALL, 2])], [(0, 0, [*TALL, 1])], class_base="1")
        assert manifest.files[0].boxes_by_class == (0, 1, 0, 0)

    @pytest.mark.parametrize(
        ("rows", "class_base", "message"),
        [
            ([(1, 3, [*TALL, 5])], "auto", r"boxes\[1, 3\] = .* has a class outside 0 to 4"),
            ([(1, 3, [*TALL, -1])], "auto", r"boxes\[1, 3\] = .* has a class outside 0 to 4"),
            ([(0, 0, [*TALL, 0]), (1, 0, [*TALL, 4])], "auto", "neither from 0 to 3 nor from 1 to 4"),
            ([(0, 0, [*TALL, 0])], "1", "climo_1980.h5: classes start at 0, not at 1"),
        ],
    )
    def test_classes_that_fit_no_numbering_are_refused(self, tmp_path, rows, class_base, message):
        with pytest.raises(DataError, match=message):
            self.manifest(tmp_path, rows, class_base=class_base)

    def test_only_rows_of_minus_one_alone_are_padding(self):
        boxes = boxes_of(2, [(1, 4, [-1, 3, 4, 5, 0])])
        assert real_rows(Path("file"), boxes).values.tolist() == [[-1, 3, 4, 5, 0]]


class TestVerify:
    def test_the_manifest_holds_numpys_statistics_of_the_training_years(self, published):
        manifest, found = verified(published, train_years=[1980, 1982], test_years=[])
        values = np.concatenate([values_of(3, 0), values_of(3, 2)]).astype(np.float64)
        assert manifest.channel_names == CHANNELS
        assert np.allclose(manifest.channel_mean, values.mean(axis=(0, 2, 3)), rtol=1e-12)
        assert np.allclose(manifest.channel_standard_deviation, values.std(axis=(0, 2, 3)), rtol=1e-10)
        entry = manifest.files[0]
        assert (entry.num_frames, entry.boxes_by_class, entry.num_frames_without_box) == (3, (1, 1, 0, 1), 1)
        assert entry.sha256 == digests(published)[entry.name]
        assert "3 frames, 1 without a box; 1 tropical depressions" in found[0]

    def test_a_large_mean_with_a_small_deviation_keeps_its_digits(self, tmp_path):
        images = values_of(3)
        images[:, 1] = 1e5 + np.random.default_rng(0).standard_normal((3, HEIGHT, WIDTH))
        write(tmp_path / "climo_1980.h5", images)
        write(tmp_path / "climo_1981.h5")
        manifest, _ = verified(tmp_path)
        assert np.isclose(manifest.channel_standard_deviation[1], images[:, 1].std(dtype=np.float64), rtol=1e-9)

    def test_several_processes_find_what_one_finds(self, published, monkeypatch):
        alone, _ = verified(published)
        monkeypatch.setattr(tasks, "MIN_POOL_BYTES", 0)
        assert verified(published)[0] == alone

    def test_the_digest_knows_values_and_not_layout(self, published, tmp_path):
        original, _ = verified(published)
        for year, seed in ((1980, 0), (1981, 1), (1982, 2)):
            write(tmp_path / "other" / f"climo_{year}.h5", values_of(3, seed), chunks=(1, 16, HEIGHT, WIDTH))
        other, _ = verified(tmp_path / "other")
        assert other.digest == original.digest
        assert other.files[0].sha256 != original.files[0].sha256
        write(tmp_path / "other" / "climo_1981.h5", values_of(3, 9))
        assert verified(tmp_path / "other")[0].digest != original.digest

    def test_a_missing_training_year_is_named_and_a_missing_test_year_said(self, published):
        (published / "climo_1982.h5").unlink()
        assert any("test years 1982 are not there" in line for line in verified(published)[1])
        (published / "climo_1981.h5").unlink()
        with pytest.raises(DataError, match=r"climo_1981\.h5: no such file"):
            verified(published)

    @pytest.mark.parametrize("wrong", [np.nan, np.inf])
    def test_a_value_that_is_not_finite_is_refused_with_its_place(self, published, wrong):
        images = values_of(3)
        images[2, 5, 7, 11] = wrong
        write(published / "climo_1980.h5", images)
        with pytest.raises(DataError, match=rf"climo_1980.h5: images\[2, 5, 7, 11\] is {wrong}"):
            verified(published)

    @pytest.mark.parametrize(
        ("images", "message"),
        [
            (np.zeros((3, 16, HEIGHT, WIDTH)), "images are float64"),
            (np.zeros((3, 16, HEIGHT), np.float32), "images are .3, 16, 32."),
            (np.zeros((3, 15, HEIGHT, WIDTH), np.float32), "3 frames of .15, 32, 48., the problem has frames of"),
            (np.zeros((3, 16, HEIGHT, WIDTH), np.float32), "channel PRECT is constant"),
        ],
    )
    def test_frames_of_another_kind_are_refused(self, published, images, message):
        write(published / "climo_1980.h5", images)
        with pytest.raises(DataError, match=message):
            verified(published)

    def test_a_file_without_boxes_is_refused(self, published):
        with h5py.File(published / "climo_1980.h5", "a") as file:
            del file["boxes"]
        with pytest.raises(DataError, match=r"climo_1980\.h5: no data set 'boxes'"):
            verified(published)

    def test_a_channel_in_an_unlikely_range_is_said(self, tmp_path):
        images = values_of(3)
        images[:, [1, 4]] = images[:, [4, 1]]
        write(tmp_path / "climo_1980.h5", images)
        write(tmp_path / "climo_1981.h5")
        _, found = verified(tmp_path)
        assert any("climo_1980.h5: PS has mean 220" in line for line in found)

    def test_a_truncated_file_is_named(self, published):
        path = published / "climo_1980.h5"
        os.truncate(path, path.stat().st_size // 2)
        with pytest.raises(DataError, match=r"climo_1980\.h5: cannot be read"):
            verified(published)

    @pytest.mark.parametrize("text", [None, "{", "{}"])
    def test_without_a_manifest_the_hint_says_how_to_get_one(self, published, text):
        if text is not None:
            (published / "manifest.json").write_text(text)
        with pytest.raises(DataError, match=r"manifest\.json.*run `hpcai500 data verify extreme_weather`"):
            read_manifest(published)

    def test_a_file_that_left_after_the_check_is_named(self, published):
        verified(published)
        (published / "climo_1981.h5").unlink()
        with pytest.raises(DataError, match=r"climo_1981\.h5 of manifest\.json is gone"):
            read_manifest(published)


LAYOUTS = {
    "published chunks": {"chunks": (2, 1, 16, 24)},
    "a plane a chunk": {"chunks": (1, 1, HEIGHT, WIDTH)},
    "a frame a chunk": {"chunks": (1, 16, HEIGHT, WIDTH), "compression": None},
    "contiguous": {"chunks": None, "compression": None},
}


class TestFrames:
    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_every_layout_reads_alike_in_any_order_and_from_threads(self, tmp_path, layout):
        images = {1980: values_of(3, 0), 1981: values_of(3, 1)}
        for year, values in images.items():
            write(tmp_path / f"climo_{year}.h5", values, **LAYOUTS[layout])
        manifest, _ = verified(tmp_path)
        frames = Frames(tmp_path, manifest, [1981, 1980])
        expected = np.concatenate([images[1980], images[1981]])
        order = [5, 0, 3, 1, 1, 4, 2] * 8
        with ThreadPoolExecutor(4) as pool:
            for index, sample in zip(order, pool.map(frames.read, order), strict=True):
                assert np.array_equal(sample.image, expected[index])
        assert len(frames) == 6

    def test_boxes_are_corners_in_pixels_and_a_frame_may_have_none(self, published):
        frames = Frames(published, verified(published)[0], [1981])
        image, boxes, labels = frames.read(0)
        assert image.shape == (16, HEIGHT, WIDTH)
        assert boxes.tolist() == [[3, 2, 10, 30], [2, 1, 4, 3]]
        assert labels.tolist() == [0, 3]
        empty = frames.read(1)
        assert (empty.boxes.shape, empty.labels.shape) == ((0, 4), (0,))
        assert (empty.boxes.dtype, empty.labels.dtype) == (np.float32, np.int64)

    def test_changing_what_was_read_changes_no_later_read(self, published):
        frames = Frames(published, verified(published)[0], [1981])
        frames.read(0).boxes[:] = 0
        assert frames.read(0).boxes.any()

    def test_an_opened_reader_survives_a_fork_and_a_pickle(self, published):
        frames = Frames(published, verified(published)[0], [1980])
        expected = frames.read(2).image
        assert np.array_equal(pickle.loads(pickle.dumps(frames)).read(2).image, expected)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writing, hashlib.sha256(frames.read(2).image.tobytes()).digest())
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert os.read(reading, 32) == hashlib.sha256(expected.tobytes()).digest()
        assert np.array_equal(frames.read(2).image, expected)

    def test_a_spawned_process_reads_with_handles_of_its_own(self, published):
        frames = Frames(published, verified(published)[0], [1980])
        expected = frames.read(1).image
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            assert np.array_equal(pool.apply(frames.read, (1,)).image, expected)

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_a_file_cut_off_while_training_is_named(self, tmp_path, layout):
        for year in (1980, 1981):
            path = write(tmp_path / f"climo_{year}.h5", **LAYOUTS[layout])
        manifest, _ = verified(tmp_path)
        frames = Frames(tmp_path, manifest, [1981])
        frames.read(0)
        os.truncate(path, path.stat().st_size // 3)
        with pytest.raises(DataError, match=r"climo_1981\.h5"):
            frames.read(2)
        with pytest.raises(DataError, match=r"climo_1981\.h5"):
            Frames(tmp_path, manifest, [1981]).read(2)

    def test_a_year_outside_the_manifest_is_refused(self, published):
        with pytest.raises(DataError, match="no year 1999"):
            Frames(published, verified(published)[0], [1999])

    def test_a_file_exchanged_after_the_check_is_refused(self, published):
        manifest, _ = verified(published)
        write(published / "climo_1980.h5", values_of(2), rows=())
        with pytest.raises(DataError, match="is not the file of the manifest"):
            Frames(published, manifest, [1980]).read(0)

    def test_a_buffer_of_another_shape_is_refused(self, published):
        frames = Frames(published, verified(published)[0], [1980])
        with pytest.raises(ValueError, match="contiguous float32"):
            frames.read_into(0, np.empty((16, HEIGHT, WIDTH)))
        with pytest.raises(IndexError):
            frames.read(3)


LITTLE_ROOM = """
import resource, sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
from hpcai500.errors import MachineError
from extreme_weather.layout import DataSettings
from extreme_weather.data_tools.prepare import prepare
from extreme_weather.data_tools.synthesize import synthesize

settings, source, target = DataSettings.model_validate_json(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    list(prepare(settings, source, target / "prepared") if source.is_dir() else
         synthesize(settings, target / "synthesized", num_samples=None, seed=0))
except MachineError as error:
    print(error)
"""


def in_another_process(command, folder) -> str:
    """The error that `command` ends with in a fork."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            list(command(folder))
        except BaseException as error:
            os.write(writing, str(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as said:
        return said.read()


def run_with_little_room(source, target):
    """What a process that may write no file of more than 50 kB says."""
    arguments = [str(data_dir("workloads")), json.dumps(SETTINGS), str(source), str(target)]
    return subprocess.run([sys.executable, "-c", LITTLE_ROOM, *arguments], capture_output=True, text=True, check=True)


class TestPrepare:
    def test_float32_is_bit_for_bit_the_source_which_stays_as_it_is(self, published, tmp_path):
        before, source_digest = digests(published), verified(published)[0].digest
        found = list(prepare(settings_of(), published, tmp_path / "fast"))
        manifest = read_manifest(tmp_path / "fast")
        assert manifest.digest == source_digest
        assert digests(published) == before
        assert "climo_1980.h5: 3 frames as float32, bit for bit the source" in found[0]
        with h5py.File(tmp_path / "fast" / "climo_1981.h5") as file:
            assert file["images"].chunks is None
            assert np.array_equal(file["images"][:], values_of(3, 1))
        assert not list((tmp_path / "fast").glob(".*"))

    @pytest.mark.parametrize(("stored", "bound"), [("float16", 2.0**-11), ("bfloat16", 2.0**-8)])
    def test_16_bits_stay_within_the_stated_error(self, published, tmp_path, stored, bound):
        found = list(prepare(settings_of(storage=stored), published, tmp_path / "fast"))
        assert f"each value within 2^{int(np.log2(bound))} of its distance from the mean" in found[0]
        manifest = read_manifest(tmp_path / "fast")
        assert manifest.files[0].storage == stored
        values, frames = values_of(3, 0), Frames(tmp_path / "fast", manifest, [1980])
        mean = values.mean(axis=(0, 2, 3), dtype=np.float64)[:, None, None]
        for index in range(3):
            error = np.abs(frames.read(index).image - values[index].astype(np.float64))
            assert (error <= 1.01 * bound * np.abs(values[index] - mean) + 2.0**-22 * np.abs(mean)).all()
        size = (tmp_path / "fast" / "climo_1980.h5").stat().st_size
        assert size < 0.6 * values.nbytes

    def test_a_value_that_16_bits_cannot_hold_is_refused(self, published, tmp_path):
        images = values_of(9)
        images[1, 0, 0, 0] = 1e4  # 1e13 deviations of the frames that the scale is from
        write(published / "climo_1980.h5", images)
        with pytest.raises(DataError, match=r"images\[1, 0, 0, 0\] = 10000 does not fit float16"):
            list(prepare(settings_of(storage="float16"), published, tmp_path / "fast"))
        assert not list((tmp_path / "fast").iterdir())

    def test_a_second_run_keeps_what_is_done_and_makes_anew_what_changed(self, published, tmp_path):
        fast = tmp_path / "fast"
        list(prepare(settings_of(), published, fast))
        before = {path.name: path.stat().st_ino for path in fast.glob("*.h5")}
        write(published / "climo_1981.h5", values_of(3, 7))
        (fast / ".climo_1981.h5.partial").write_bytes(b"half of a file")
        found = list(prepare(settings_of(), published, fast))
        after = {path.name: path.stat().st_ino for path in fast.glob("*.h5")}
        assert [name for name in before if before[name] != after[name]] == ["climo_1981.h5"]
        assert sum("prepared already" in line for line in found) == 2
        assert f"{fast}/climo_1981.h5: is of another source, storage or version; it is written anew" in found
        assert not list(fast.glob(".*"))
        list(prepare(settings_of(storage="float16"), published, fast))
        assert {entry.storage for entry in read_manifest(fast).files} == {"float16"}

    @pytest.mark.parametrize("stored", ["float32", "float16"])
    def test_a_value_that_changed_in_a_prepared_file_is_named_by_verify_and_mended(self, published, tmp_path, stored):
        fast, settings = tmp_path / "fast", settings_of(storage=stored)
        list(prepare(settings, published, fast))
        before = digests(fast)
        with h5py.File(fast / "climo_1980.h5", "r+") as file:
            file["images"][1, 2, 3, 4] = file["images"][1, 2, 3, 5]
        with h5py.File(fast / "climo_1981.h5", "r+") as file:
            file["boxes"][0, 0] = file["boxes"][0, 1]
        with pytest.raises(DataError, match=r"climo_1980\.h5: is not what was prepared; run `hpcai500 data prepare`"):
            list(verify(settings, fast))
        found = list(prepare(settings, published, fast))
        assert f"{fast}/climo_1980.h5: is not what was prepared; it is written anew" in found
        assert f"{fast}/climo_1981.h5: is not what was prepared; it is written anew" in found
        assert f"{fast}/climo_1982.h5: prepared already" in found
        assert digests(fast) == before

    @pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
    def test_a_prepared_file_that_was_cut_off_is_written_anew(self, published, tmp_path, share):
        fast = tmp_path / "fast"
        list(prepare(settings_of(), published, fast))
        before, path = digests(fast), fast / "climo_1980.h5"
        os.truncate(path, int(share * path.stat().st_size))
        found = list(prepare(settings_of(), published, fast))
        assert re.fullmatch(rf"{path}: cannot be read \(.*\); it is written anew", found[0])
        assert digests(fast) == before

    def test_a_second_process_is_told_of_the_first(self, published, tmp_path):
        with sole_writer(tmp_path / "fast"):
            for command in (
                lambda folder: prepare(settings_of(), published, folder),
                lambda folder: synthesize(settings_of(), folder, num_samples=1, seed=0),
            ):
                assert "another process is preparing data there" in in_another_process(command, tmp_path / "fast")
        assert not list((tmp_path / "fast").iterdir())

    def test_several_processes_write_what_one_writes(self, published, tmp_path, monkeypatch):
        list(prepare(settings_of(), published, tmp_path / "alone"))
        monkeypatch.setattr(tasks, "MIN_POOL_BYTES", 0)
        monkeypatch.setattr("extreme_weather.storage.BLOCK_BYTES", 1)
        list(prepare(settings_of(), published, tmp_path / "together"))
        assert digests(tmp_path / "together") == digests(tmp_path / "alone")

    def test_the_source_is_no_destination(self, published, tmp_path):
        (tmp_path / "link").symlink_to(published)
        for folder in (published, tmp_path / "link"):
            with pytest.raises(OccupiedError, match="is the source itself"):
                list(prepare(settings_of(), published, folder))
        with pytest.raises(SpecError, match="give --source"):
            list(prepare(settings_of(), None, tmp_path / "fast"))

    def test_no_room_is_one_line_and_leaves_nothing(self, published, tmp_path):
        said = run_with_little_room(published, tmp_path)
        assert said.stdout == f"{tmp_path}/prepared/climo_1980.h5: File too large\n"
        assert not list((tmp_path / "prepared").iterdir())

    def test_a_broken_source_is_refused_before_anything_is_written(self, published, tmp_path):
        write(published / "climo_1981.h5", rows=[(0, 0, [9, 9, 3, 3, 0])])
        with pytest.raises(DataError, match=r"climo_1981\.h5: boxes"):
            list(prepare(settings_of(), published, tmp_path / "fast"))
        assert not (tmp_path / "fast").exists()


class TestStaging:
    def test_a_copy_reads_as_the_original_and_is_made_once(self, published, tmp_path):
        manifest, _ = verified(published)
        place = staged_folder(manifest, tmp_path / "local")
        stage(published, manifest, [1980, 1981], tmp_path / "local")
        assert sorted(path.name for path in place.iterdir()) == ["climo_1980.h5", "climo_1981.h5"]
        assert np.array_equal(Frames(place, manifest, [1981]).read(2).image, values_of(3, 1)[2])
        inodes = {path.stat().st_ino for path in place.iterdir()}
        os.truncate(place / "climo_1980.h5", 100)
        stage(published, manifest, [1980, 1981], tmp_path / "local")
        assert (place / "climo_1981.h5").stat().st_ino in inodes
        assert np.array_equal(Frames(place, manifest, [1980]).read(0).image, values_of(3, 0)[0])


MINI = {"frame_height": 64, "frame_width": 96}


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    """Mini frames of two years, and their manifest."""
    folder = tmp_path_factory.mktemp("synthetic")
    list(synthesize(settings_of(**MINI, test_years=[]), folder, num_samples=60, seed=0))
    return folder, read_manifest(folder)


class TestSynthesize:
    def test_the_files_have_the_published_layout(self, synthetic):
        with h5py.File(synthetic[0] / "climo_1980.h5") as file:
            images, boxes = file["images"], file["boxes"]
            assert (images.shape, images.dtype, images.compression) == ((60, 16, 64, 96), np.float32, "gzip")
            assert (boxes.shape, boxes.dtype) == ((60, 15, 5), np.int32)

    def test_a_seed_gives_the_same_bytes_whatever_the_processes(self, synthetic, tmp_path, monkeypatch):
        monkeypatch.setattr(tasks, "MIN_POOL_BYTES", 0)
        list(synthesize(settings_of(**MINI, test_years=[]), tmp_path / "again", num_samples=60, seed=0))
        assert digests(tmp_path / "again") == digests(synthetic[0])
        monkeypatch.undo()
        list(synthesize(settings_of(**MINI, test_years=[]), tmp_path / "other", num_samples=2, seed=1))
        with h5py.File(tmp_path / "other" / "climo_1980.h5") as a, h5py.File(synthetic[0] / "climo_1980.h5") as b:
            assert not np.array_equal(a["images"][0], b["images"][0])

    def test_years_and_frames_differ(self, synthetic):
        first, second = (Frames(*synthetic, [year]) for year in (1980, 1981))
        assert not np.array_equal(first.read(0).image, first.read(1).image)
        assert not np.array_equal(first.read(0).image, second.read(0).image)

    def test_what_is_there_already_stays_and_nothing_else_is_overwritten(self, tmp_path):
        found = list(synthesize(settings_of(), tmp_path, num_samples=2, seed=0))
        before = digests(tmp_path)
        again = list(synthesize(settings_of(), tmp_path, num_samples=2, seed=0))
        assert "2 synthetic frames of seed 0" in found[0]
        assert "synthesized already" in again[0]
        for num_samples, seed in ((3, 0), (2, 1)):
            with pytest.raises(OccupiedError, match=r"climo_1980\.h5 holds something else"):
                list(synthesize(settings_of(), tmp_path, num_samples=num_samples, seed=seed))
        assert digests(tmp_path) == before
        with pytest.raises(SpecError, match="at least 1 frame"):
            list(synthesize(settings_of(), tmp_path, num_samples=0, seed=0))

    def test_no_room_is_one_line_and_leaves_nothing(self, tmp_path):
        said = run_with_little_room(tmp_path / "none", tmp_path)
        assert said.stdout == f"{tmp_path}/synthesized/climo_1980.h5: File too large\n"
        assert not list((tmp_path / "synthesized").iterdir())

    def test_frames_hold_none_to_five_phenomena_of_all_classes(self, synthetic):
        folder, manifest = synthetic
        frames = Frames(folder, manifest, [1980, 1981])
        counts = [len(frames.read(index).labels) for index in range(len(frames))]
        assert (min(counts), max(counts)) == (0, 5)
        assert min(np.sum([entry.boxes_by_class for entry in manifest.files], axis=0)) > 40
        sizes = np.concatenate([sample.boxes[:, 2:] - sample.boxes[:, :2] for sample in map(frames.read, range(120))])
        assert sizes.min() >= 4
        assert sizes.max() <= 50

    def test_channels_have_plausible_ranges_and_fall_off_to_the_poles(self, synthetic):
        folder, manifest = synthetic
        frames = Frames(folder, manifest, [1980])
        mean = np.mean([frames.read(index).image for index in range(60)], axis=(0, 3))
        zonal = dict(zip(CHANNELS, mean, strict=True))
        for name in ("T500", "TMQ", "TREFHT", "TS", "QREFHT", "Z200", "ZBOT"):
            assert zonal[name][32] > zonal[name][[4, 59]].max()
        trades, westerlies = zonal["U850"][[26, 37]], zonal["U850"][[15, 48]]
        assert trades.max() < 0 < westerlies.min()
        samples = [frames.read(index).image for index in range(10)]
        rain = np.stack(samples)[:, CHANNELS.index("PRECT")]
        assert rain.min() >= 0
        assert rain.mean() > 3 * np.median(rain)

    @pytest.mark.parametrize(("latitude", "turn"), [(20.0, 1), (-20.0, -1)])
    def test_a_cyclone_is_a_warm_low_that_turns_the_right_way_round_an_eye(self, latitude, turn):
        grid = Grid(768, 1152)
        storm = tropical_cyclone(np.random.default_rng(1), grid, latitude, 500.0)
        east = np.searchsorted(storm.columns, 500 + 8)
        row, centre = np.searchsorted(storm.rows, round(grid.row(latitude))), np.searchsorted(storm.columns, 500)
        assert turn * storm.added["V850"][row, east] > 5
        assert turn * storm.added["V850"][row, 2 * centre - east] < -5
        assert storm.added["PSL"].min() < -300
        assert storm.added["T500"].max() > 1
        rain = storm.added["PRECT"]
        assert rain[row, centre] < 0.3 * rain.max()

    @pytest.mark.parametrize("label", range(4))
    def test_a_box_encloses_its_footprint_and_no_more(self, label):
        grid, kind = Grid(64, 96), PHENOMENA[label]
        storm = kind.build(np.random.default_rng(5), grid, float(np.mean(kind.latitudes)), 48.0)
        y_min, x_min, y_max, x_max = storm.box(grid)
        mask = np.zeros((grid.height, grid.width), bool)
        mask[np.ix_(storm.rows, storm.columns)] = storm.footprint
        assert mask.sum() == mask[y_min:y_max, x_min:x_max].sum()
        for edge in (mask[y_min], mask[y_max - 1], mask[:, x_min], mask[:, x_max - 1]):
            assert edge.any()

    def test_a_phenomenon_across_the_seam_has_no_box(self):
        grid = Grid(64, 96)
        assert tropical_cyclone(np.random.default_rng(0), grid, 20.0, 0.0).box(grid) is None

    def test_the_full_grid_comes_from_the_same_code(self):
        frame, rows = make_frame(Grid(768, 1152), 0.5, (0, 1980, 3))
        assert (frame.shape, frame.dtype) == ((16, 768, 1152), np.float32)
        assert np.isfinite(frame).all()
        assert rows

    def test_wind_and_pressure_of_the_background_are_in_balance(self):
        fields = background(np.random.default_rng(0), Grid(64, 96), 0.25)
        pressure, wind = (fields[name] - fields[name].mean(axis=1, keepdims=True) for name in ("PSL", "V850"))
        slope = np.roll(pressure, -1, axis=1) - np.roll(pressure, 1, axis=1)
        assert np.corrcoef(slope[44:56].ravel(), wind[44:56].ravel())[0, 1] > 0.5  # north
        assert np.corrcoef(slope[8:20].ravel(), wind[8:20].ravel())[0, 1] < -0.5  # south


class TestBaseline:
    def test_one_channels_extremes_find_some_and_not_most(self, synthetic):
        train, evaluation = (Frames(*synthetic, [year]) for year in (1980, 1981))
        baseline = Baseline(train)
        hits, total = 0, 0
        for index in range(len(evaluation)):
            sample = evaluation.read(index)
            found = baseline.predict(sample.image)
            assert len(found["boxes"]) == len(found["labels"]) == len(found["scores"])
            for box, label in zip(sample.boxes, sample.labels, strict=True):
                total += 1
                hits += bool((iou(box, found["boxes"][found["labels"] == label]) >= 0.5).any())
        assert 0.1 < hits / total < 0.7
