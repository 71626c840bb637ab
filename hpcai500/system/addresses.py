"""The address under which other nodes reach this one."""

import ipaddress
import socket
from collections.abc import Mapping

import psutil

from hpcai500.errors import MachineError


def own_address(env: Mapping[str, str], *, single_node: bool) -> str:
    """The IPv4 address of this node for others: that of Gloo's interface if it is set, else the host name's.

    Raises:
        MachineError: if another node cannot reach that address.
    """
    interface = env.get("GLOO_SOCKET_IFNAME", "").split(",")[0]
    if interface:
        found = [a.address for a in psutil.net_if_addrs().get(interface, []) if a.family == socket.AF_INET]
        if not found:
            raise MachineError(
                f"no network interface {interface!r} with an IPv4 address on {socket.gethostname()}",
                f"choose from {', '.join(sorted(psutil.net_if_addrs()))}",
            )
        return found[0]
    if single_node:
        return "127.0.0.1"
    try:
        address = socket.gethostbyname(socket.gethostname())
    except OSError:
        address = "127.0.0.1"
    if ipaddress.ip_address(address).is_loopback:
        raise MachineError(
            f"the host name {socket.gethostname()} resolves to {address}, which other nodes cannot reach",
            "name the nodes' common interface: network_interface in the site profile, or GLOO_SOCKET_IFNAME",
        )
    return address
