"""Starting ranks by Open MPI's mpirun, or by Horovod's own launcher: token lists, held by golden tests."""

MPIRUN_VALUED = ("-np", "--map-by", "--bind-to")
"""The options below that the next token belongs to."""


def mpirun_tokens(
    *, nodes: int, procs_per_node: int, num_ranks: int = 0, arguments: tuple[str, ...] = (), as_root: bool = False
) -> tuple[str, ...]:
    """`mpirun` and its options; `num_ranks` is 0 where every node is full.

    Ranks are bound to no core, so that each has the threads of its share of the node; and a node that counts fewer
    slots than ranks takes them all the same.
    """
    mapping = "slot" if num_ranks else f"ppr:{procs_per_node}:node"
    tokens = ["mpirun", "-np", str(num_ranks or nodes * procs_per_node)]
    tokens += ["--map-by", f"{mapping}:oversubscribe", "--bind-to", "none"]
    return (*tokens, *(["--allow-run-as-root"] if as_root else []), *arguments)


def local_mpirun_tokens(procs_per_node: int, *, as_root: bool) -> tuple[str, ...]:
    """All ranks on this machine, whatever hosts a default of Open MPI's names."""
    here = ("--host", f"localhost:{procs_per_node}")
    return mpirun_tokens(nodes=1, procs_per_node=procs_per_node, arguments=here, as_root=as_root)


def mpirun_environment(interface: str = "") -> dict[str, str]:
    """What mpirun's ranks need; `interface` is the fabric's, empty where Open MPI is to choose."""
    fabric = {f"OMPI_MCA_{part}_tcp_if_include": interface for part in ("btl", "oob")} if interface else {}
    return fabric | {"TQDM_DISABLE": "1"}  # ranks see a terminal even where mpirun has none: no progress bar


def horovodrun_tokens(python: str, num_ranks: int) -> tuple[str, ...]:
    """Horovod's launcher without MPI, on this machine."""
    hosts = ("-np", str(num_ranks), "-H", f"localhost:{num_ranks}")
    return (python, "-m", "horovod.runner.launch", *hosts, "--gloo", "--disable-cache")
