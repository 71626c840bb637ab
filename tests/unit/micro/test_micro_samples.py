from itertools import pairwise

import pytest

from hpcai500.micro.document import MicroDocument
from hpcai500.micro.sample import Coverage, MicroResults, Sample, Shape, Skipped, rate, spread
from hpcai500.report.micro import micro_text


def sample(**fields) -> Sample:
    given = {
        "name": "GEMM 2048", "metric": "gemm_2048_fp32_flops", "unit": "FLOPS", "value": 1e12, "lower_quartile": 9e11,
        "upper_quartile": 1.1e12, "num_repeats": 7, "better": "higher", "precision": "fp32",
        "part": "kernels", "family": "gemm",
    }  # fmt: skip
    return Sample(**{**given, **fields})


def document(*samples, skipped=()) -> MicroDocument:
    return MicroDocument(
        time="2026-01-01T00:00:00+00:00", host="box", device="cpu", accelerator="Test CPU", num_threads=2,
        samples=samples, skipped=tuple(skipped),
    )  # fmt: skip


def test_median_and_quartiles_lie_between_the_nearest_values():
    assert spread([4.0, 1.0, 3.0, 2.0]) == (2.5, 1.75, 3.25)
    assert spread([7.0]) == (7.0, 7.0, 7.0)


def test_the_lower_quartile_of_a_rate_is_that_of_the_slow_calls():
    # quartiles of 1, 2, 3, 4, 5 s are 2 and 4 s
    assert rate(12.0, [1.0, 2.0, 3.0, 4.0, 5.0]) == (4.0, 3.0, 6.0)


def test_one_wrong_result_makes_the_findings_wrong():
    right, wrong = sample(), sample(correct=False)
    assert MicroResults(samples=(right,)).correct
    assert not (MicroResults(samples=(right,)) + MicroResults(samples=(wrong,))).correct


def test_a_table_names_wrong_results_and_what_was_not_measured_within_100_columns():
    wrong = sample(correct=False, detail="2048 x 2048 by 2048 x 2048: the result is wrong")
    text = micro_text(
        document(sample(detail="x" * 200), wrong, skipped=[Skipped(name="gemm tf32", reason="no TF32")])
    )
    assert "WRONG RESULT: gemm_2048_fp32_flops" in text
    assert "gemm tf32: no TF32" in text
    assert "±10%" in text
    assert max(map(len, text.splitlines())) <= 100


def test_each_table_is_headed_by_the_part_that_measured_it_whatever_a_detail_says():
    shape = sample(metric="mine_mini.mm.8x8_fp32_flops", part="workloads", family="shape")
    coverage = Coverage(
        workload="mine", problem="mini", precision="fp32", num_samples=8, pass_flops=1e9, num_shapes=2, share=0.9,
        shapes=(Shape(metric=shape.metric, count=1, share=0.9),), together="any_name",
    )  # fmt: skip
    found = document(
        sample(detail="of all ranks"), sample(name="aibench relu", family="aibench"), shape,
        sample(metric="any_name", part="workloads", family=""), sample(part="storage", family="storage"),
        sample(part="collectives", family="broadcast", detail="8 B"),
    )  # fmt: skip
    lines = micro_text(found.model_copy(update={"coverages": (coverage,)})).splitlines()
    headings = [line for before, line in pairwise(lines) if not before]
    assert [heading.partition(",")[0] for heading in headings[:-1]] == [
        "Kernels", "AIBench's twelve kernels", "mine mini fp32", "Storage", "Collectives",
    ]  # fmt: skip
    assert any(line.startswith("relu fp32") for line in lines)


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["--only", "kernel"], 2, "did you mean 'kernels'?"),
        (["--budget-sec", "0"], 2, "must be above 0"),
        (["--only", "kernels", "--device", "tpu"], 2, "unknown device 'tpu'"),
        (["--only", "kernels", "--device", "cuda:9"], 3, "no GPU 'cuda:9'"),
        (["--only", "kernels", "--precisions", "bf61"], 2, "did you mean 'bf16'?"),
        (["--only", "collectives", "--device", "cpu", "--sizes", "8,big"], 2, "'big' is not a number of bytes"),
        (["--only", "collectives", "--backend", "mpi", "--launcher", "local"], 2, "starts no ranks of backend mpi"),
    ],
)
def test_what_cannot_be_measured_is_one_line_and_an_exit_code(hpcai500, tmp_path, argv, code, said):
    found, _, complaint = hpcai500("micro", "--folder", tmp_path, *argv)
    assert (found, complaint.count("\n")) == (code, 1)
    assert said in complaint
