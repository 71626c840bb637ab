"""What to do about a finding: what admins look at first."""

from hpcai500.validate.judge.bounds import matches
from hpcai500.validate.judge.findings import Kind
from hpcai500.validate.judge.reading import Key

_CLOCKS = (
    "Look at clocks, power and temperature while it runs (`nvidia-smi -q -d PERFORMANCE,CLOCK,POWER`, `turbostat`), "
    "for other processes on the node, and at its BIOS performance profile; then run this node alone again."
)
_PCIE = (
    "Compare `nvidia-smi -q | grep -A9 'GPU Link Info'` with a good node: a link at a lower width or generation asks "
    "for the card to be reseated. Check NUMA binding and IOMMU settings."
)
_MEMORY = (
    "Compare populated memory channels and their speed (`dmidecode -t memory`), NUMA and sub-NUMA settings, and for "
    "a GPU its memory clock and remapped rows (`nvidia-smi -q -d CLOCK,ROW_REMAPPER`)."
)
_STORAGE = (
    "Compare mount options, the client's version and its network (`mount`, `lctl get_param`, `nfsstat -m`); repeat "
    "on an idle file system before blaming the node. For a local disk look at `smartctl -a`."
)
_LINK = (
    "Look at port counters and speed at both ends (`ibstat`, `perfquery`, `ethtool -S`): errors or a lower rate mean "
    "the cable or the transceiver; if both ends are clean, look at the route and the switch port."
)
_NODE_LINKS = (
    "Most links of this node are slow while its peers' are not: check its adapter, the adapter's PCIe slot, its "
    "cable and its switch port (`ibstat`, `ethtool`, `lspci -vv | grep LnkSta`)."
)
_TRAINING = (
    "If kernels are slow there too, mend those first; otherwise look at its data path (storage), its host processors "
    "and other processes on the node."
)
_COLLECTIVE = "Look at findings of links first; then at NCCL_DEBUG=INFO or the MPI library's choice of interface."

_SLOW = (
    ("micro/host_to_device*", _PCIE),
    ("micro/device_to_host*", _PCIE),
    ("micro/*copy*", _MEMORY),
    ("micro/*memory*", _MEMORY),
    ("micro/*", _CLOCKS),
    ("links/*", _LINK),
    ("collectives/*", _COLLECTIVE),
    ("storage/*", _STORAGE),
    ("training/*", _TRAINING),
)
_OTHER: dict[Kind, str] = {
    "differs": "Give the node the image, driver and settings of the others, reboot it, and validate it again.",
    "split": "If the partition holds two kinds of nodes on purpose, validate each kind by itself (--nodes); "
    "otherwise finish the roll-out that stopped half-way.",
    "spread": "Look at the heat map for two groups; validate each group alone, on idle nodes. If healthy nodes "
    "differ that much here, raise `relative` for this metric under [[peers]] in the site's file.",
    "missing": "Look at the node's log in the validation's folder; a device that is gone shows in `nvidia-smi -L` "
    "and `dmesg -T | grep -i xid`.",
    "no_answer": "See whether the node is up (`scontrol show node`), its log in the validation's folder, and "
    "whether it sees that folder; mend it or drain it, then validate it again.",
    "better": "Nothing to mend, but something differs: see whether it really does the same work, or whether its "
    "neighbours are all slow.",
}
_WRONG_LOSS = (
    "The node computes something else: take it out of service, test its memory and GPU (`dcgmi diag -r 3`, ECC "
    "counters, `memtester`), and compare its library versions."
)
_CHANGED = (
    "If the change was meant (an upgrade), save a new baseline; otherwise find out what changed since its date. "
)


def remedy(kind: Kind, key: Key | None) -> str:
    """What to do about a finding of `kind` in the metric `key`."""
    if key is not None and kind in ("differs", "split") and matches("*loss*", key):
        return _WRONG_LOSS
    if kind in _OTHER:
        return _OTHER[kind]
    slow = next((text for pattern, text in _SLOW if key is not None and matches(pattern, key)), "")
    if kind == "baseline":
        return _CHANGED + slow
    if kind == "expected" and not slow:
        return "Compare the node with one that keeps the value, or correct the site's file."
    return slow


def remedy_of_node_links() -> str:
    return _NODE_LINKS


def remedy_of_many_links() -> str:
    return (
        "So many slow links share something: look at the switches and uplinks between these nodes, and for other "
        "traffic during the run; the link matrix of the HTML report shows the pattern."
    )


def remedy_of_trouble(kind: str) -> str:
    """Where the stage gave none."""
    if kind in ("unreachable", "timeout"):
        return _OTHER["no_answer"]
    if kind == "wrong_result":
        return _WRONG_LOSS
    return "See the node's log in the validation's folder."
