"""A site profile: how one cluster wants to be asked for nodes, and what a job needs there before it starts."""

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
"""Text that stands on one line of a script."""
Word = Annotated[str, StringConstraints(pattern=r"^\S*$")]
EnvironmentName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]

_TIME = re.compile(r"(?:(?P<days>\d+)-(?P<hours>\d+)(?P<rest>(?::\d+){0,2})|(?P<plain>\d+(?::\d+){0,2}))")


class SlurmRequest(Frozen):
    """`[slurm]`: what a job asks Slurm for."""

    partition: Word = ""
    """Empty: the cluster's default."""
    account: Word = ""
    qos: Word = ""
    constraint: Word = ""
    """Node features, as `--constraint` takes them."""
    reservation: Word = ""
    time: str = ""
    """Wall-clock limit of one run: `HH:MM:SS`, or another of Slurm's forms; empty: the partition's default."""
    nodes: Count = 1
    """Where the command line gives no `--nodes`."""
    gpus_per_node: NotNegative = 0
    gpu_type: Word = ""
    """The type in `--gpus-per-node=TYPE:N`, where a node holds several."""
    gpu_request: Literal["gpus-per-node", "gres"] = "gpus-per-node"
    """The option that asks for GPUs; `gres` writes `--gres=gpu:N`."""
    tasks_per_node: NotNegative = 0
    """Ranks a node; 0: one a GPU, or one on a CPU."""
    cpus_per_task: NotNegative = 0
    """Cores a rank; 0: as Slurm has it."""
    memory: Annotated[str, StringConstraints(pattern=r"^(\d+[KMGT]?)?$")] = ""
    """Of a node, e.g. `240G`; `0`: all of it; empty: the partition's default."""
    exclusive: bool = False
    """Whole nodes, shared with nobody."""
    mpi: Annotated[str, StringConstraints(pattern=r"^(none|pmi2|pmix(_v\d+)?|cray_shasta)$")] = "none"
    """How `srun` starts MPI: `none` (enough for torch), `pmi2`, `pmix`, or a version of it such as `pmix_v4`."""
    launcher: Word = "srun"
    """What starts the ranks inside a job; `mpirun` if no plugin of srun fits the MPI library."""
    max_parallel: NotNegative = 0
    """Runs of one array that are in the machine at once; 0: no limit."""
    sbatch_arguments: tuple[Line, ...] = ()
    """Further options of `sbatch`, one a string."""
    srun_arguments: tuple[Line, ...] = ()
    """Further options of `srun`, one a string."""
    mpirun_arguments: tuple[Line, ...] = ()
    """Further options of `mpirun`, one word a string."""

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
    """`[preemption]`: how a run is told to stop, and how often it goes on."""

    signal: Literal["USR1", "USR2", "TERM"] = "USR1"
    """Sent to the ranks ahead of the time limit."""
    grace_sec: Annotated[int, Field(ge=0, le=65_535)] = 120
    """How far ahead."""
    max_requeues: NotNegative = 3


class Software(Frozen):
    """`[software]`: what a job sets up before its ranks start."""

    modules: tuple[Word, ...] = ()
    """For `module load`, in this order."""
    prologue: tuple[Line, ...] = ()
    """Lines of bash, run on the first node before the modules are loaded."""
    environment: dict[EnvironmentName, Line] = Field(default_factory=dict)
    """Variables of every rank, taken as they stand: `$` expands only in the prologue."""
    python: Line = ""
    """The interpreter on the nodes; empty: the one that submits, or a container's `python3`."""
    network_interface: Word = ""
    """Of the fabric, for Gloo and NCCL; empty: each chooses."""


class Container(Frozen):
    """`[container]`: the image that ranks run in."""

    engine: Literal["none", "apptainer", "pyxis"] = "none"
    image: Line = ""
    mounts: tuple[Line, ...] = ()
    """`SOURCE:TARGET`, beside the folders of the run itself, which are always mounted."""
    arguments: tuple[Line, ...] = ()
    """Further options of `apptainer exec`, or of `srun` under pyxis, one a string."""

    @model_validator(mode="after")
    def _an_engine_has_an_image(self) -> "Container":
        if (self.engine == "none") != (not self.image):
            raise ValueError("engine and image go together: give both or neither")
        return self


class Places(Frozen):
    """`[places]`: folders as the nodes see them."""

    results: Line = ""
    """Results directory; empty: `results` where the command runs."""
    staging: Line = ""
    """A folder on each node's own disk, to copy the data to before the clock starts."""
    data: dict[str, Line | dict[str, Line]] = Field(default_factory=dict)
    """`workload.problem` to its data set, or `workload` to a folder that holds one folder a problem."""

    @model_validator(mode="after")
    def _are_absolute(self) -> "Places":
        data = [
            path for value in self.data.values() for path in (value.values() if isinstance(value, dict) else [value])
        ]
        for path in (self.results, self.staging, *data):
            if path and not path.startswith("/"):
                raise ValueError(f"{path!r} must be an absolute path: nodes see it from elsewhere")
        return self


class Site(Frozen):
    """Defaults suit a CPU cluster that asks for nothing special."""

    system: Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*)?$")] = ""
    """The machine's name in rankings; a file that gives none gives its own name."""
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
        """Where `problem`'s data set lies; empty where the profile does not say."""
        place = self.places.data.get(workload, "")
        return place.get(problem, "") if isinstance(place, dict) else place and f"{place}/{problem}"


def time_limit_sec(text: str) -> int:
    """Seconds of a Slurm time limit: `M`, `M:S`, `H:M:S`, `D-H`, `D-H:M` or `D-H:M:S`.

    Raises:
        ValueError: if it is none of them, or no time at all.
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
        raise ValueError("a time limit of zero is none; leave it empty for the partition's default")
    return total


def site_folders() -> tuple[Path, Path]:
    """The user's own profiles, which win, and the shipped ones."""
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return config / "hpcai500" / "sites", data_dir("slurm") / "sites"


def find_sites() -> dict[str, Path]:
    """Every profile that a name reaches, in the order of names."""
    own, shipped = ({path.stem: path for path in folder.glob("*.toml")} for folder in site_folders())
    return dict(sorted((shipped | own).items()))


def shipped_sites() -> list[Path]:
    """The profiles that come with the project, by name."""
    return sorted(site_folders()[1].glob("*.toml"))


def load_site(name_or_path: str) -> Site:
    """The profile of a name, the user's own before a shipped one, or of a path to a `.toml` file.

    Raises:
        SpecError: if there is none (the choices are listed), or it holds what a profile does not.
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
        raise SpecError(f"{path}: {error}", "mend the file, or give another --site") from error
    return parse(Site, {"system": path.stem} | _plain(raw), path)


def with_site_overrides(site: Site, overrides: Mapping[str, Any]) -> Site:
    """`site` with the value of each key replaced; a key's table may be left out: `partition`, `slurm.partition`.

    Raises:
        SpecError: for an unknown key, or a value that the profile could not hold either.
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
    """TOML's own types as JSON knows them: `time = 01:30:00` is a time of day to TOML."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.isoformat() if isinstance(value, (date, time)) else value
