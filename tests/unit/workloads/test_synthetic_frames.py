"""The synthetic frames of Extreme Weather Analytics are the same, bit by bit, whatever made them."""

import os
import subprocess
import sys

import h5py
import numpy as np
import pytest

from hpcai500.errors import OccupiedError
from hpcai500.files import data_dir, digest
from hpcai500.spec.models import parse
from hpcai500.spec.reference import find_reference
from hpcai500.spec.workload import load_rules

sys.path.insert(0, str(data_dir("workloads")))
from extreme_weather.data_tools.atmosphere import _QUANTUM_EXPONENTS, Grid, _rounded
from extreme_weather.data_tools.synthesize import GENERATOR_VERSION, synthesize
from extreme_weather.data_tools.synthetic_frame import box_array, make_frame
from extreme_weather.layout import CHANNELS, DataSettings
from extreme_weather.scan import content_digest, plane_digest
from extreme_weather.storage import BOX_ROWS

DATA = parse(DataSettings, load_rules(data_dir("workloads") / "extreme_weather").problems["mini"].data, "data")
GRID = Grid(DATA.frame_height, DATA.frame_width)

DISPATCHED = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
NO_AVX512 = {"NPY_DISABLE_CPU_FEATURES": " ".join(name for name in DISPATCHED if "512" in name or name == "X86_V4")}
NOTHING = {"NPY_DISABLE_CPU_FEATURES": " ".join(DISPATCHED)}
LIBM_TOO = NOTHING | {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX,-AVX2,-FMA,-FMA4,-AVX512F,-AVX512VL,-SSE4_1"}

SHA256_OF_FRAMES = "c1efe18693a63030c1b8c755114dec38d0f8593e95221e9631e2486214fedd95"
"""Changes with GENERATOR_VERSION alone."""
PRINT_SHA256 = """
import hashlib, sys
sys.path.insert(0, sys.argv[1])
from extreme_weather.data_tools.atmosphere import Grid
from extreme_weather.data_tools.synthetic_frame import make_frame
total = hashlib.sha256()
for index in range(25):
    frame, rows = make_frame(Grid(64, 96), index / 25, (0, 1980, index))
    total.update(frame.astype("<f4").tobytes() + repr(rows).encode())
print(total.hexdigest())
"""


@pytest.mark.parametrize(
    "environment",
    [
        pytest.param({}, id="whatever there is"),
        pytest.param(NO_AVX512, id="no AVX-512"),
        pytest.param(NOTHING, id="numpy's baseline"),
        pytest.param(LIBM_TOO, id="numpy's and libm's baseline"),
    ],
)
def test_frames_and_boxes_are_the_same_on_every_processor(environment):
    command = [sys.executable, "-c", PRINT_SHA256, str(data_dir("workloads"))]
    kept = {key: value for key, value in os.environ.items() if key != "NPY_DISABLE_CPU_FEATURES"}
    found = subprocess.run(command, env=kept | environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == SHA256_OF_FRAMES


def test_the_reference_holds_the_digest_of_the_mini_data_set():
    files = []
    for year in DATA.years:
        frames = [
            make_frame(GRID, index / DATA.num_synthetic_frames, (0, year, index))
            for index in range(DATA.num_synthetic_frames)
        ]
        planes = [[plane_digest(plane) for plane in frame] for frame, _ in frames]
        boxes = np.stack([box_array(rows, BOX_ROWS) for _, rows in frames])
        files.append([year, content_digest(planes, boxes), "yxyx", 0])
    assert find_reference("extreme_weather", "mini").known.dataset_digest == digest(files)


def test_each_value_is_a_multiple_far_below_its_channels_deviation():
    frames = np.stack([make_frame(GRID, index / 10, (0, 1979, index))[0] for index in range(10)])
    for name, values in zip(CHANNELS, frames.swapaxes(0, 1).astype(np.float64), strict=True):
        quantum = 2.0 ** _QUANTUM_EXPONENTS[name]
        assert (values % quantum == 0).all()
        assert values.std() / 10_000 < quantum < values.std() / 700


def test_what_rounds_to_nothing_has_no_sign():
    values = _rounded(np.array([-1e-3, 1e-3, -0.0, 0.30, -0.38]), -2)
    assert values.tobytes() == np.array([0, 0, 0, 0.25, -0.5], np.float32).tobytes()


def test_a_data_set_of_another_generator_is_refused_with_what_to_do(tmp_path):
    with h5py.File(tmp_path / "climo_1979.h5", "w") as file:
        file.attrs["synthetic"] = GENERATOR_VERSION - 1
    message = rf"climo_1979\.h5 was made by version 1 of the generator, .*delete the climo_\*\.h5 of {tmp_path}"
    with pytest.raises(OccupiedError, match=message):
        list(synthesize(DATA, tmp_path, num_samples=None, seed=0))
