"""Makes tests/datachannel/vectors/: packets that a stock OpenVPN and this service exchanged, with their keys.

Run as root: `.venv/bin/python scripts/make_vectors.py`. For each cipher a stock client talks to a server under the
shim; the packets are captured on the client's link, the keys are taken from the InstallKey request. "from_openvpn"
were sealed by OpenVPN; "to_openvpn" were sealed by this service, and OpenVPN opened them, for its client answered
the pings inside. The keys protect nothing but these pings.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from ovpn.dataplane.v1 import common_pb2, key_pb2

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from lab.dataplane import DataPlane, shim  # noqa: E402 - the project's root is not on the path before
from lab.key_recorder import recording  # noqa: E402
from lab.lab import Lab  # noqa: E402
from lab.openvpn import INITIALIZED, Settings, start_client, start_server  # noqa: E402
from lab.pki import Authority  # noqa: E402
from lab.traffic import ping, wait_reachable  # noqa: E402
from lab.waiting import wait_until  # noqa: E402

CIPHERS = ("AES-128-GCM", "AES-192-GCM", "AES-256-GCM", "CHACHA20-POLY1305")
PINGS = 5

CAPTURE = """
import socket, sys
link = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM)
link.bind((sys.argv[1], 3))  # ETH_P_ALL: only this shows outgoing packets
print("capturing", flush=True)
while True:
    packet, address = link.recvfrom(65535)
    payload = packet[(packet[0] & 15) * 4 + 8:]
    if address[1] == 0x0800 and packet[9] == 17 and payload[0] >> 3 == 9:
        outgoing = address[2] == socket.PACKET_OUTGOING
        print("from_openvpn" if outgoing else "to_openvpn", payload.hex(), flush=True)
"""


def main() -> None:
    """Writes one file a cipher."""
    version = subprocess.run(["openvpn", "--version"], check=False, capture_output=True, text=True).stdout.split()[1]
    target = ROOT / "tests/datachannel/vectors"
    target.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as directory, Lab(Path(directory)) as lab:
        daemon = DataPlane(lab)
        authority = Authority(Path(directory))
        for number, cipher in enumerate(CIPHERS):
            vector = record(lab, daemon, authority, cipher, f"v{number}")
            path = target / f"openvpn-{version}-{cipher.lower()}.json"
            path.write_text(json.dumps({"openvpn": version, "cipher": cipher, **vector}, indent=1) + "\n")
            print(path.relative_to(ROOT), len(vector["from_openvpn"]), len(vector["to_openvpn"]))


def record(lab: Lab, daemon: DataPlane, authority: Authority, cipher: str, label: str) -> dict[str, Any]:
    """One tunnel, some pings; the key (the server's view) and the packets of both directions."""
    with recording(daemon.target, lab.sockets) as (proxy, recorder):
        server_side = lab.namespace(f"{label}s")
        client_side = lab.namespace(f"{label}c")
        link = lab.link(server_side, client_side)
        settings = Settings(cipher=cipher, inner_ipv6=False)
        server = start_server(
            lab,
            server_side,
            authority.server(f"{label}s"),
            settings,
            front=shim(proxy, lab.directory / f"{label}.shim.log"),
            label=f"{label}s",
        )
        server.process.wait_for(INITIALIZED)
        capture = lab.start(client_side, [sys.executable, "-c", CAPTURE, f"to-{link.number}b"], f"{label}-capture")
        capture.wait_for("capturing")
        client = start_client(
            lab, client_side, authority.client(f"{label}c"), settings, link.ipv4(1), label=f"{label}c"
        )
        client.wait_initialized()
        (server_address, *_), (client_address, *_) = server.vpn_addresses(), client.vpn_addresses()
        wait_reachable(lab, client_side, server_address)
        answered = ping(lab, server_side, client_address, count=PINGS).received
        wait_until(lambda: len(recorder.keys) == 1, "the one key")
        client.process.stop()
        server.process.stop()
        capture.stop()
        if answered != PINGS:
            raise RuntimeError(f"{answered} of {PINGS} pings were answered")
        return {
            "server_address": server_address,
            "client_address": client_address,
            **key_fields(recorder.keys[0]),
            **packets(capture.output()),
        }


def key_fields(request: key_pb2.InstallKeyRequest) -> dict[str, object]:
    """The key as the server installed it."""
    return {
        "alg": common_pb2.Cipher.Name(request.cipher),
        "key_id": request.key_id,
        "peer_id": request.peer_id,
        "encrypt_key": request.encrypt.cipher_key.hex(),
        "encrypt_nonce_tail": request.encrypt.nonce_tail.hex(),
        "decrypt_key": request.decrypt.cipher_key.hex(),
        "decrypt_nonce_tail": request.decrypt.nonce_tail.hex(),
    }


def packets(captured: str) -> dict[str, list[str]]:
    """The captured packets by direction, in order."""
    found: dict[str, list[str]] = {"from_openvpn": [], "to_openvpn": []}
    for line in captured.splitlines():
        direction, _, packet = line.partition(" ")
        if direction in found:
            found[direction].append(packet)
    return found


if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("run as root: it makes network namespaces")
    main()
