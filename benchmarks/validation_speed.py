"""The time of the verdict on a partition of 5,000 nodes, from its files to all four reports."""

import statistics
import sys
import tempfile
import time
from pathlib import Path

from hpcai500.report.validation.render import FORMATS, render
from hpcai500.validate.judge.verdict import judge

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from partition import Partition

NUM_NODES, NUM_GPUS, NUM_ROUNDS, REPEATS = 5_000, 8, 8, 3


def row() -> tuple[str, str, str, str, str]:
    """Rows of `bench.py`'s table."""
    with tempfile.TemporaryDirectory() as name:
        partition = Partition(NUM_NODES, num_gpus=NUM_GPUS, noise=0.01, rounds=NUM_ROUNDS)
        folder = partition.write(Path(name))
        judging, reporting = [], []
        for _ in range(REPEATS):
            start = time.perf_counter()
            report = judge(folder)
            middle = time.perf_counter()
            for format in FORMATS:
                render(report, format)
            judging.append(middle - start)
            reporting.append(time.perf_counter() - middle)
    what = f"verdict on {NUM_NODES:,} nodes ({len(partition.found):,} measurements); and its four reports"
    return what, f"{statistics.median(judging):.1f} s; {statistics.median(reporting):.1f} s", "", "", "seconds"


if __name__ == "__main__":
    print(*row(), sep=" | ")
