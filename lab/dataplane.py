"""The service under test: its daemon, and a gRPC client that looks at it. Knows the contract; must not know OpenVPN.

The daemon gets a network namespace of its own: it shares none with the OpenVPN processes it serves.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import grpc
from ovpn.dataplane.v1 import (
    common_pb2,
    device_pb2,
    device_pb2_grpc,
    peer_pb2,
    peer_pb2_grpc,
    server_pb2,
    server_pb2_grpc,
)

from lab.lab import Lab
from lab.processes import cpu_seconds
from lab.waiting import wait_until

PROGRAMS: Final = Path(sys.executable).parent
RPC_SECONDS: Final = 10


class DataPlane:
    """A running daemon. Its sockets are in `run_directory`, by default one of its own.

    datapath: "compiled" or "python"; "" leaves it to the daemon, and so to OVPN_DATAPLANE_DATAPATH.
    """

    def __init__(self, lab: Lab, label: str = "daemon", run_directory: Path | None = None, datapath: str = "") -> None:
        self.run_directory = run_directory or lab.sockets / label
        self.target = f"unix://{self.run_directory}/control.sock"
        argv = [str(PROGRAMS / "ovpn-dataplane"), "--run-dir", str(self.run_directory), "--log-level", "debug"]
        argv += ["--datapath", datapath] if datapath else []
        self.process = lab.start(lab.namespace(label), argv, label)
        self.channel = grpc.insecure_channel(self.target)
        wait_until(self._is_ready, "the daemon's answer", timeout_seconds=20)

    def front(self, log: Path) -> list[str]:
        """The words that put the shim, served by this daemon, before a command line of OpenVPN."""
        return shim(self.target, log)

    def datapath(self) -> str:
        """Which implementation carries the packets: "compiled" or "python"."""
        stub = server_pb2_grpc.ServerServiceStub(self.channel)
        kind = stub.GetServerInfo(server_pb2.GetServerInfoRequest(), timeout=RPC_SECONDS).datapath
        return server_pb2.DatapathKind.Name(kind).removeprefix("DATAPATH_KIND_").lower()

    def devices(self) -> list[device_pb2.Device]:
        """All devices, by name."""
        stub = device_pb2_grpc.DeviceServiceStub(self.channel)
        return list(stub.ListDevices(device_pb2.ListDevicesRequest(), timeout=RPC_SECONDS).devices)

    def peers(self, device: str) -> list[peer_pb2.Peer]:
        """All peers of a device, by peer_id."""
        stub = peer_pb2_grpc.PeerServiceStub(self.channel)
        return list(stub.ListPeers(peer_pb2.ListPeersRequest(device=device), timeout=RPC_SECONDS).peers)

    def all_peers(self) -> list[peer_pb2.Peer]:
        """The peers of all devices."""
        return [peer for device in self.devices() for peer in self.peers(device.name)]

    def worker_pids(self) -> dict[str, int]:
        """The worker of each role; meant for one tunnel, whose server is MP and whose client is P2P."""
        roles = {common_pb2.DEVICE_MODE_MP: "server", common_pb2.DEVICE_MODE_P2P: "client"}
        return {roles[device.mode]: device.worker_pid for device in self.devices()}

    def worker_cpu_seconds(self) -> dict[str, float]:
        """CPU time of the worker of each role, as worker_pids()."""
        return {role: cpu_seconds(pid) for role, pid in self.worker_pids().items()}

    def _is_ready(self) -> bool:
        if self.process.exit_code is not None:
            raise RuntimeError(f"the daemon ended with {self.process.exit_code}:\n{self.process.output()}")
        try:
            self.devices()
        except grpc.RpcError:
            return False
        return True


def shim(target: str, log: Path) -> list[str]:
    """The words that put the shim before a command line of OpenVPN. The shim's own log goes to `log`."""
    program = [str(PROGRAMS / "ovpn-shim"), "run", "--target", target]
    return [*program, "--log-level", "debug", "--log-file", str(log), "--"]
