"""A site profile: how to ask one cluster for nodes, and what a job there needs before it starts."""

import os
import re
import tomllib
from collections.abc import Mapping
from datetime import date, time
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator

from hpcai500.errors import SpecError, nearest
from hpcai500.files import data_dir
from hpcai500.spec.models import Frozen, parse
from hpcai500.spec.workload import Count

NotNegative = Annotated[int, Field(ge=0)]
Line = Annotated[str, StringConstraints(pattern=r"^[^\n\r\x00]*$")]
"""Text that fits on one line of a script."""
Word = Annotated[str, StringConstraints(pattern=r"^\S*$")]
EnvironmentName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]

_TIME = re.compile(r"(?:(?P<days>\d+)-(?P<hours>\d+)(?P<rest>(?::\d+){0,2})|(?P<plain>\d+(?::\d+){0,2}))")


class SlurmRequest(Frozen):
    """`[slurm]`: the resources that a job asks Slurm for."""

    partition: Word = ""
    """Empty for the cluster's default."""
    account: Word = ""
    qos: Word = ""
    constraint: Word = ""
    """Node features, as `--constraint` takes them."""
    reservation: Word = ""
    time: str = ""
    """Wall-clock limit of one run: `HH:MM:SS`, or another of Slurm's forms; empty for the partition's default."""
    nodes: Count = 1
    """Nodes of a job, if the command line has no `--nodes`."""
    gpus_per_node: NotNegative = 0
    gpu_type: Word = ""
    """The type in `--gpus-per-node=TYPE:N`, if nodes have several types."""
    gpu_request: Literal["gpus-per-node", "gres"] = "gpus-per-node"
    """The option that asks for GPUs; `gres` writes `--gres=gpu:N`."""
    tasks_per_node: NotNegative = 0
    """Ranks per node; 0 for one per GPU, or one per node without GPUs."""
    cpus_per_task: NotNegative = 0
    """Cores per rank; 0 for Slurm's default."""
    memory: Annotated[str, StringConstraints(pattern=r"^(\d+[KMGT]?)?$")] = ""
    """Memory per node, e.g. `240G`; `0` for all of it; empty for the partition's default."""
    exclusive: bool = False
    """Whether the job shares its nodes with no other job."""
    mpi: Annotated[str, StringConstraints(pattern=r"^(none|pmi2|pmix(_v\d+)?|cray_shasta)$")] = "none"
    """How `srun` starts MPI: `none` (enough for torch), `pmi2`, `pmix`, or a version of it such as `pmix_v4`."""
    launcher: Word = "srun"
    """The launcher that starts the ranks inside a job; `mpirun` if no plugin of srun fits the MPI library."""
    max_parallel: NotNegative = 0
    """Runs of one array that may run at the same time; 0 for no limit."""
    sbatch_arguments: tuple[Line, ...] = ()
    """Further options of `sbatch`, one per string."""
    srun_arguments: tuple[Line, ...] = ()
    """Further options of `srun`, one per string."""
    mpirun_arguments: tuple[Line, ...] = ()
    """Further options of `mpirun`, one word per string."""

    @field_validator("time")
    @classmethod
    def _time_is_slurm_s(cls, text: str) -> str:
        if text:
            time_limit_sec(text)
        return text

    @property
    def procs_per_node(self) -> int:
        return self.tasks_per_node or max(1, self.gpus_per_node)


class Preemption(Frozen):
    """`[preemption]`: how a run is asked to stop, and how often it is requeued."""

    signal: Literal["USR1", "USR2", "TERM"] = "USR1"
    """The signal to the ranks before the time limit."""
    grace_sec: Annotated[int, Field(ge=0, le=65_535)] = 120
    """Seconds between that signal and the time limit."""
    max_requeues: NotNegative = 3


class Software(Frozen):
    """`[software]`: what a job sets up before its ranks start."""

    modules: tuple[Word, ...] = ()
    """Modules to load, in this order."""
    prologue: tuple[Line, ...] = ()
    """Lines of bash, run on the first node before the modules are loaded."""
    environment: dict[EnvironmentName, Line] = Field(default_factory=dict)
    """Variables of every rank, taken literally: `$` expands only in the prologue."""
    python: Line = ""
    """The interpreter on the nodes; empty for the one that submits, or a container's `python3`."""
    network_interface: Word = ""
    """The network interface for Gloo and NCCL; empty to let each choose."""


class Container(Frozen):
    """`[container]`: the image that ranks run in."""

    engine: Literal["none", "apptainer", "pyxis"] = "none"
    image: Line = ""
    mounts: tuple[Line, ...] = ()
    """`SOURCE:TARGET`, in addition to the folders of the run, which are always mounted."""
    arguments: tuple[Line, ...] = ()
    """Further options of `apptainer exec`, or of `srun` under pyxis, one per string."""

    @model_validator(mode="after")
    def _an_engine_has_an_image(self) -> "Container":
        if (self.engine == "none") != (not self.image):
            raise ValueError("engine and image go together: give both or neither")
        return self


class Places(Frozen):
    """`[places]`: folders as the nodes see them."""

    results: Line = ""
    """The results directory; empty for `results` in the current folder."""
    staging: Line = ""
    """A folder on each node's own disk, to which the data is copied before the clock starts."""
    data: dict[str, Line | dict[str, Line]] = Field(default_factory=dict)
    """`workload.problem` to its data set, or `workload` to a folder with one folder per problem."""

    @model_validator(mode="after")
    def _are_absolute(self) -> "Places":
        data = [
            path for value in self.data.values() for path in (value.values() if isinstance(value, dict) else [value])
        ]
        for path in (self.results, self.staging, *data):
            if path and not path.startswith("/"):
                raise ValueError(f"{path!r} must be an absolute path, since nodes have another working directory")
        return self


class Site(Frozen):
    """A site profile. The defaults suit a CPU cluster without special needs."""

    system: Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*)?$")] = ""
    """The machine's name in rankings; by default the name of the file."""
    slurm: SlurmRequest = SlurmRequest()
    preemption: Preemption = Preemption()
    software: Software = Software()
    container: Container = Container()
    places: Places = Places()

    @model_validator(mode="after")
    def _pyxis_has_srun(self) -> "Site":
        if self.container.engine == "pyxis" and self.slurm.launcher != "srun":
            raise ValueError("container.engine pyxis is a plugin of srun: slurm.launcher must be srun")
        return self

    @model_validator(mode="after")
    def _there_is_time_to_stop(self) -> "Site":
        if self.slurm.time and time_limit_sec(self.slurm.time) <= self.preemption.grace_sec:
            raise ValueError(
                f"slurm.time ({self.slurm.time}) must exceed preemption.grace_sec ({self.preemption.grace_sec})"
            )
        return self

    def data_folder(self, workload: str, problem: str) -> str:
        """The folder of `problem`'s data set; empty if the profile has none."""
        place = self.places.data.get(workload, "")
        return place.get(problem, "") if isinstance(place, dict) else place and f"{place}/{problem}"


def time_limit_sec(text: str) -> int:
    """Seconds of a Slurm time limit: `M`, `M:S`, `H:M:S`, `D-H`, `D-H:M` or `D-H:M:S`.

    Raises:
        ValueError: if it has another form, or is zero.
    """
    match = _TIME.fullmatch(text)
    if not match:
        raise ValueError("write a time limit as HH:MM:SS, D-HH:MM:SS or minutes")
    if match["plain"]:
        parts = [int(part) for part in match["plain"].split(":")]
        hours, minutes, seconds = parts if len(parts) == 3 else (0, *parts, 0)[:3]
    else:
        minutes, seconds = ([int(part) for part in match["rest"].split(":")[1:]] + [0, 0])[:2]
        hours = int(match["days"]) * 24 + int(match["hours"])
    total = hours * 3_600 + minutes * 60 + seconds
    if total == 0:
        raise ValueError("the time limit must be above zero; leave it empty for the partition's default")
    return total


def site_folders() -> tuple[Path, Path]:
    """The folders of the user's own profiles, which take precedence, and of the shipped ones."""
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return config / "hpcai500" / "sites", data_dir("slurm") / "sites"


def find_sites() -> dict[str, Path]:
    """Every profile that can be named, sorted by name."""
    own, shipped = ({path.stem: path for path in folder.glob("*.toml")} for folder in site_folders())
    return dict(sorted((shipped | own).items()))


def load_site(name_or_path: str) -> Site:
    """The profile with a name, the user's own before a shipped one, or at a path to a `.toml` file.

    Raises:
        SpecError: if there is none (the choices are listed), or if it is not a valid profile.
    """
    known = find_sites()
    path = known.get(name_or_path, Path(name_or_path))
    if name_or_path not in known and path.suffix != ".toml":
        raise SpecError(
            f"unknown site {name_or_path!r}",
            f"{nearest(name_or_path, known)} (have: {', '.join(known)}), or give a path to your own .toml",
        )
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SpecError(f"{path}: {error}", "fix the file, or give another --site") from error
    return parse(Site, {"system": path.stem} | _plain(raw), path)


def with_site_overrides(site: Site, overrides: Mapping[str, Any]) -> Site:
    """`site` with the value of each key replaced. The table may be left out: `partition` for `slurm.partition`.

    Raises:
        SpecError: for an unknown key, or a value that is not valid in a profile.
    """
    values = site.model_dump(mode="json")
    tables = {key: table for key, table in values.items() if isinstance(table, dict)}
    full = {f"{table}.{key}": key for table, content in tables.items() for key in content}
    by_leaf = {leaf: key for key, leaf in full.items()}
    for given, value in overrides.items():
        key = by_leaf.get(given, given)
        if key == "system":
            values["system"] = value
            continue
        if key not in full:
            raise SpecError(f"--slurm {given}: unknown key", nearest(given, [*by_leaf, *full, "system"]))
        table, leaf = key.split(".", 1)
        value = _plain(value)
        is_text = isinstance(values[table][leaf], str) and type(value) is int  # `--slurm account=1234`
        values[table][leaf] = str(value) if is_text else value
    return parse(Site, values, "--slurm")


def _plain(value: Any) -> Any:
    """`value` with TOML's own types as text: `time = 01:30:00` is a time of day in TOML."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.isoformat() if isinstance(value, (date, time)) else value
