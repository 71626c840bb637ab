"""Runs to rank."""

import pytest

from hpcai500.score.result import write_result


@pytest.fixture
def results(tmp_path):
    return tmp_path / "results"


@pytest.fixture
def add(make_spec, write_run):
    """One finished run: its folder."""

    def add(qualities=(0.5, 0.9), seed=0, system="testbox", total_sec=10.0, energy=None, overrides=None, **fields):
        spec = make_spec(seed=seed, system=system, overrides=overrides, **fields)
        folder = write_run(spec, list(qualities), total_sec=total_sec, energy=energy)
        write_result(folder)
        return folder

    return add
