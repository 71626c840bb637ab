"""What to do about a finding whose remedy depends on its metric: what admins check first."""

from hpcai500.validate.judge.bounds import matches
from hpcai500.validate.judge.findings import WRONG_RESULT, Kind
from hpcai500.validate.judge.reading import Key

_CLOCKS = (
    "Check clocks, power and temperature while it runs (`nvidia-smi -q -d PERFORMANCE,CLOCK,POWER`, `turbostat`), "
    "other processes on the node, and its BIOS performance profile. Then run this node alone again."
)
_PCIE = (
    "Compare `nvidia-smi -q | grep -A9 'GPU Link Info'` with a good node: reseat a card whose link has a lower width "
    "or generation. Check NUMA binding and IOMMU settings."
)
_MEMORY = (
    "Compare populated memory channels and their speed (`dmidecode -t memory`), NUMA and sub-NUMA settings, and for "
    "a GPU its memory clock and remapped rows (`nvidia-smi -q -d CLOCK,ROW_REMAPPER`)."
)
_STORAGE = (
    "Compare mount options, the client's version and its network (`mount`, `lctl get_param`, `nfsstat -m`). Repeat "
    "on an idle file system before you suspect the node. For a local disk check `smartctl -a`."
)
_LINK = (
    "Check port counters and speed at both ends (`ibstat`, `perfquery`, `ethtool -S`): errors or a lower rate mean "
    "the cable or the transceiver. If both ends are clean, check the route and the switch port."
)
_TRAINING = (
    "If kernels are slow there too, fix those first. Otherwise check its data path (storage), its host processors "
    "and other processes on the node."
)
_COLLECTIVE = "Check the findings of links first, then NCCL_DEBUG=INFO or the MPI library's choice of interface."

NODE_LINKS = (
    "Most links of this node are slow and its peers' are not: check its adapter, the adapter's PCIe slot, its "
    "cable and its switch port (`ibstat`, `ethtool`, `lspci -vv | grep LnkSta`)."
)
MANY_LINKS = (
    "So many slow links have a common cause: check the switches and uplinks between these nodes, and other "
    "traffic during the run. The link matrix of the HTML report shows the pattern."
)

BY_METRIC = (
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
"""Remedies of a slow metric: the first pattern that matches counts."""


def remedy(kind: Kind, key: Key) -> str:
    """What to do about a finding of `kind` in the metric `key`."""
    if kind in (Kind.DIFFERS, Kind.SPLIT) and matches("*loss*", key):
        return WRONG_RESULT
    slow = next((text for pattern, text in BY_METRIC if matches(pattern, key)), "")
    if kind is Kind.BASELINE:
        return f"{kind.remedy} {slow}".rstrip()
    if kind is Kind.EXPECTED and slow:
        return slow
    return kind.remedy or slow
