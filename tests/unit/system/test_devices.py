import sys

import pynvml
import pytest

from hpcai500.errors import MachineError
from hpcai500.spec.run import read_run
from hpcai500.system.devices import gpu_precision, native_precision


@pytest.mark.parametrize(
    ("text", "precision"),
    [
        ("model name : X\nflags\t\t: fpu avx512f avx512_bf16 rdpid\n", "bf16"),
        ("flags : fpu amx_bf16 amx_tile\n", "bf16"),
        ("Features\t: fp asimd bf16 i8mm\n", "bf16"),
        ("flags : fpu avx2 avx512f\nbugs : bf16\n", "fp32"),
        ("", "fp32"),
    ],
)
def test_a_processor_that_multiplies_in_bf16_is_used_so(tmp_path, text, precision):
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    assert native_precision(on_gpus=False, cpuinfo=path) == precision


def test_where_linux_tells_nothing_fp32_is_safe(tmp_path):
    assert native_precision(on_gpus=False, cpuinfo=tmp_path / "none") == "fp32"


def test_gpus_get_what_their_tensor_cores_know():
    assert [gpu_precision(capability) for capability in ((6, 1), (7, 0), (7, 5), (8, 0), (9, 0))] == [
        "fp32", "fp16", "fp16", "bf16", "bf16",
    ]  # fmt: skip


def test_auto_is_settled_here_and_run_json_holds_what_it_came_to(hpcai500, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")  # the ranks end at once
    hpcai500(
        "run", "image_classification", "--problem", "mini", "--data", "synthetic", "--precision", "auto",
        "--set", "execution.device=cpu", "--output", tmp_path,
    )  # fmt: skip
    (path,) = tmp_path.rglob("run.json")
    assert read_run(path).settings.execution.precision == native_precision(on_gpus=False)


def test_auto_says_nothing_of_other_machines(hpcai500, tmp_path):
    code, _, err = hpcai500("render", "image_classification", "--precision", "auto", "--site", "cpu")
    assert code == 2
    assert "--precision auto asks this machine, and the run is for others; name a precision" in err


def test_a_gpu_that_nvml_does_not_know_is_an_error_in_one_line(monkeypatch):
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda _: 1 / 0)
    with pytest.raises(MachineError, match="NVML does not report the kind of GPU: .*; name a precision"):
        native_precision(on_gpus=True)
