import json
import xml.etree.ElementTree as ElementTree

import pytest

from hpcai500.errors import InputError
from hpcai500.micro.document import MicroDocument
from hpcai500.micro.roofline import ceilings_of, points_of_runs, read_ceilings
from hpcai500.micro.roofline_model import Ceilings, Roofline, WorkloadPoint, roof, roofline_point
from hpcai500.micro.sample import Sample
from hpcai500.report.roofline import roofline_plot, roofline_text

CEILINGS = Ceilings(
    host="box", accelerator="Test GPU", device="cuda:0", source="by hand", gemm={"bf16": 800e12, "fp32": 50e12},
    convolution={"bf16": 1000e12, "fp32": 40e12, "tf32": 400e12}, memory_bytes_per_sec=2e12,
)  # fmt: skip
"""Ceilings whose ridge in bf16 is at 1000e12 / 2e12 = 500 FLOPs per byte."""


def point(flops, low, high, precision="bf16") -> WorkloadPoint:
    """A point with 1,000 FLOPs per sample, between the intensities `low` and `high`."""
    return WorkloadPoint(
        name="resnet full", precision=precision, source="by hand", flops=flops, flops_per_sample=1000.0,
        unfused_bytes=1000.0 / low, fused_bytes=1000.0 / high,
    )  # fmt: skip


def test_the_roof_is_bandwidth_up_to_the_ridge_and_the_peak_beyond():
    assert [roof(x, 1000.0, 2.0) for x in (1, 250, 500, 5000)] == [2.0, 500.0, 1000.0, 1000.0]


@pytest.mark.parametrize(
    ("flops", "low", "high", "bound", "said"),
    [
        (600e12, 1000.0, 2000.0, "compute", "2.0 times the ridge's or more, and it reaches 60% of the bf16 peak"),
        (100e12, 50.0, 250.0, "memory", "by a factor of 2.0 even if all is fused: it reaches 20% of that roof"),
        (150e12, 50.0, 900.0, "memory unless fused", "by a factor of 10.0 unless operators are fused"),
        (20e12, 50.0, 900.0, "neither", "it reaches 20% of its lowest roof, 2% of the bf16 peak"),
        (400e12, 1000.0, 2000.0, "neither", "look at overhead"),
    ],
)
def test_what_bounds_a_workload_and_by_how_much(flops, low, high, bound, said):
    placed = roofline_point(point(flops, low, high), CEILINGS)
    assert placed.bound == bound
    assert said in placed.sentence


def test_fp32_is_held_against_tf32_which_torch_convolves_in():
    assert CEILINGS.peak("fp32") == 400e12
    assert CEILINGS.peak("bf16") == 1000e12
    assert CEILINGS.peak("fp16") == 0.0


def test_the_table_says_it_all_within_100_columns():
    long = point(150e12, 50.25, 903.5).model_copy(update={"name": "image_classification mini"})
    found = Roofline(
        ceilings=CEILINGS, points=tuple(roofline_point(p, CEILINGS) for p in (point(150e12, 50.0, 900.0), long))
    )
    text = roofline_text(found)
    assert max(map(len, text.splitlines())) <= 100
    assert "memory     2 TB/s" in text
    assert "50 to 900" in text
    assert "resnet full bf16 (by hand): memory bounds it by a factor of 10.0 unless operators" in text


def test_the_plot_is_an_svg_with_units_and_every_workload():
    points = (
        roofline_point(point(150e12, 50.0, 900.0), CEILINGS),
        roofline_point(point(30e12, 20.0, 60.0, "fp32"), CEILINGS),
    )
    root = ElementTree.fromstring(roofline_plot(Roofline(ceilings=CEILINGS, points=points)))
    texts = " ".join(element.text or "" for element in root.iter() if element.tag.endswith("text"))
    for said in (
        "FLOPs per byte",
        "FLOPS of one device",
        "Test GPU",
        "resnet full bf16",
        "resnet full fp32",
        "2 TB/s",
    ):
        assert said in texts


def sample(family, value, unit="FLOPS", precision="bf16", **fields) -> Sample:
    return Sample(
        name=family, metric=f"{family}_1024", part="kernels", family=family, unit=unit,
        value=value, lower_quartile=value, upper_quartile=value,
        num_repeats=5, better="higher", precision=precision, **fields,
    )  # fmt: skip


def document(*samples) -> MicroDocument:
    return MicroDocument(
        time="", host="box", device="cpu", accelerator="Test CPU", num_threads=1, samples=samples, skipped=()
    )


def test_ceilings_are_the_best_kernels_of_each_precision():
    memory = sample("copy", 9.0, "B/s", "")
    kernels = [sample("gemm", 3.0), sample("gemm", 4.0)]
    found = ceilings_of(document(*kernels, sample("convolution", 5.0), memory), "file")
    assert (found.gemm, found.convolution, found.memory_bytes_per_sec) == ({"bf16": 4.0}, {"bf16": 5.0}, 9.0)
    with pytest.raises(InputError, match="has no results of kernels"):
        ceilings_of(document(*kernels), "file")
    with pytest.raises(InputError, match="gemm_1024 gave a wrong result"):
        ceilings_of(document(sample("gemm", 3.0, correct=False), memory), "file")


def test_a_file_of_the_first_version_gives_the_same_ceilings(tmp_path):
    """A file of version 1, in which only names give the kind of a sample. One is of a workload called gemm."""
    kinds = {
        "gemm_2048_bf16_flops": ("FLOPS", 4.0), "convolution_256_bf16_flops": ("FLOPS", 5.0),
        "aibench_convolution_fp32_flops": ("FLOPS", 7.0), "my_gemm_mini.mm.8x8_bf16_flops": ("FLOPS", 8.0),
        "copy_bytes_per_sec": ("B/s", 9.0), "storage_hdf5_random_bytes_per_sec": ("B/s", 10.0),
        "all_reduce_8_sec": ("s", 11.0),
    }  # fmt: skip
    samples = [
        {
            "name": metric, "metric": metric, "unit": unit, "value": value, "lower_quartile": value,
            "upper_quartile": value, "num_repeats": 5, "better": "higher",
            "precision": "bf16" if "bf16" in metric else "",
        }
        for metric, (unit, value) in kinds.items()
    ]  # fmt: skip
    record = document().model_dump(mode="json") | {"schema_version": 1, "samples": samples}
    (tmp_path / "old.json").write_text(json.dumps(record))
    found = read_ceilings(tmp_path / "old.json")
    assert (found.gemm, found.convolution, found.memory_bytes_per_sec) == ({"bf16": 4.0}, {"bf16": 5.0}, 9.0)
    own = document(sample("gemm", 4.0), sample("copy", 9.0, "B/s", ""))
    (tmp_path / "new.json").write_text(own.model_dump_json())
    assert read_ceilings(tmp_path / "new.json").gemm == {"bf16": 4.0}


def test_a_runs_point_is_the_flops_of_one_device_while_it_trained(make_spec, write_run):
    folder = write_run(make_spec(nodes=1, procs_per_node=2), [0.5, 0.9], total_sec=8.0, flops_per_sample=1e9)
    (found,) = points_of_runs([folder])
    # three quarters of each of two epochs train: 1,408 samples in 3 s, on one node's processors
    assert found.flops == pytest.approx(1408 * 1e9 / 3)
    assert found.flops_per_sample == 495_771_648
    assert found.unfused_bytes > found.fused_bytes
    system = json.loads((folder / "system.json").read_text())
    system["nodes"][0]["layers"]["1"]["gpus"] = [{"model": "Test GPU"}]
    (folder / "system.json").write_text(json.dumps(system))
    (found,) = points_of_runs([folder])
    assert (found.flops, found.accelerator) == (pytest.approx(1408 * 1e9 / 3 / 2), "Test GPU")
    assert "image_classification mini fp32 x2  " in roofline_text(
        Roofline(ceilings=CEILINGS, points=(roofline_point(found, CEILINGS),))
    )


def test_seeds_of_one_experiment_are_one_point_at_their_median(make_spec, write_run):
    """Trials too, which no ranking takes; a run that was cut off is left out."""
    few = {"problem.num_epochs": 2}
    for seed, total_sec in enumerate((8.0, 4.0, 16.0)):
        write_run(make_spec(overrides=few, seed=seed), [0.5, 0.9], total_sec=total_sec)
    cut_off = write_run(make_spec(overrides=few, seed=3), [0.5], stop="")
    (found,) = points_of_runs([cut_off.parent])
    # 3 s of training in the run of the median
    assert found.flops == pytest.approx(1408 * 1e9 / 3)
    assert found.source == "testbox, 1 rank, 3 runs"
    with pytest.raises(InputError, match="no finished run .*: aborted"):
        points_of_runs([cut_off])


def test_ceilings_of_another_accelerator_than_the_results_are_said_to_be():
    ours, theirs = (point(150e12, 50.0, 900.0).model_copy(update={"accelerator": of}) for of in ("Test GPU", "Other"))
    same, other = (
        roofline_text(Roofline(ceilings=CEILINGS, points=(roofline_point(p, CEILINGS),))) for p in (ours, theirs)
    )
    assert "NOTE" not in same
    assert "NOTE: some results are of Other, the ceilings of Test GPU" in other
