import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
DATA = ("workloads/", "slurm/sites/", "slurm/templates/")


@pytest.mark.skipif(find_spec("build") is None, reason="build is not installed: pip install -e '.[dev]'")
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="compares the wheel with what git tracks")
def test_the_wheel_holds_every_tracked_file_of_the_package_and_its_data_and_no_other(tmp_path):
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, ROOT]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    listing = ["git", "-c", "safe.directory=*", "ls-files", "hpcai500", *DATA]
    tracked = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    expected = {f"hpcai500/_data/{path}" if path.startswith(DATA) else path for path in tracked}
    assert held == expected
