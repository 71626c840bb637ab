"""Where a run's data set lies."""

from pathlib import Path

from hpcai500.errors import DataError
from hpcai500.spec.record import SYNTHETIC
from hpcai500.spec.run import RunSpec
from hpcai500.spec.site import Site
from hpcai500.spec.workload import find_workload


def default_data(workload: str, problem: str) -> Path:
    """The folder of a data set that neither a command nor a site names."""
    return Path("data") / workload / problem


def data_folder(given: str, workload: str, problem: str, site: Site) -> str:
    """The absolute folder of the data set, or `synthetic`: as `given`, else the site's, else the default."""
    if given == SYNTHETIC:
        return SYNTHETIC
    name = find_workload(workload).name
    return str(Path(given or site.data_folder(name, problem) or default_data(name, problem)).absolute())


def require_data(spec: RunSpec) -> None:
    """Check that the run's data set exists.

    Raises:
        DataError: if its folder does not exist.
    """
    if not spec.is_synthetic and not Path(spec.data).is_dir():
        raise DataError(
            f"no data directory {spec.data}",
            f"run `hpcai500 data prepare {spec.workload.name} --problem {spec.problem}`, or give --data",
        )
