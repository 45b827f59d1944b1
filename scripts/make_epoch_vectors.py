"""Makes tests/datachannel/vectors/epoch/: packets with epoch data keys that two stock OpenVPN 2.7 exchanged.

Run as root after `scripts/setup_openvpn27.sh`: `.venv/bin/python scripts/make_epoch_vectors.py [DIRECTORY]`. For each
cipher a client and a server, which negotiate epoch keys by themselves, exchange pings; the packets are captured on the
client's link. Then a ping that was sealed here with a later key of the client's is slipped in: the server moves to that
epoch and answers in it, and the client follows. "from_openvpn" is what the client sent, "to_openvpn" what the server
sent; encrypt and decrypt are the server's view, as in the other vectors. OpenVPN tells each side's first epoch secret
in its log (--verb 9), cut to the length of the cipher's key; the rest is read from its memory. The keys protect nothing
but these pings.
"""

from __future__ import annotations

import json
import os
import re
import socket
import struct
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from make_vectors import CAPTURE, PINGS, ROOT
from make_vectors import packets as by_direction

from lab import openvpn27
from lab.lab import Lab
from lab.openvpn import INITIALIZED, PORT, OpenVpn, Settings, start_client, start_server
from lab.pki import Authority
from lab.traffic import ping, wait_reachable
from lab.waiting import wait_until

KEY_BYTES: Final = {"AES-128-GCM": 16, "AES-192-GCM": 24, "AES-256-GCM": 32, "CHACHA20-POLY1305": 32}
SECRET_BYTES: Final = 32
LATER_EPOCH: Final = 3
COUNTER: Final = 40
"""Of the slipped-in packet: beyond those that the client is going to send in that epoch, which are in its window."""

HEADER: Final = struct.Struct("!IQ")
"""Opcode, key-id and peer-id (4 bytes); epoch (16 bits) and counter (48 bits)."""

INJECT = """
import socket, sys
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
raw.sendto(bytes.fromhex(sys.argv[1]), (sys.argv[2], 0))
"""


def main() -> None:
    """Writes one file a cipher."""
    target = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "tests/datachannel/vectors/epoch")
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory, Lab(Path(directory)) as lab:
        authority = Authority(Path(directory))
        for number, cipher in enumerate(KEY_BYTES):
            vector = record(lab, authority, cipher, f"v{number}")
            path = target / f"openvpn-{vector['openvpn']}-{cipher.lower()}.json"
            path.write_text(json.dumps(vector, indent=1) + "\n")
            print(path, len(vector["from_openvpn"]), len(vector["to_openvpn"]))


def record(lab: Lab, authority: Authority, cipher: str, label: str) -> dict[str, Any]:
    """One tunnel, pings in the first epoch and in a later one; the secrets and the packets of both directions."""
    near, far = lab.namespace(f"{label}s"), lab.namespace(f"{label}c")
    link = lab.link(near, far)
    settings = Settings(cipher=cipher, inner_ipv6=False, verb=9)
    program = openvpn27.program()
    server = start_server(lab, near, authority.server(f"{label}s"), settings, program=program, label=f"{label}s")
    server.process.wait_for(INITIALIZED)
    capture = lab.start(far, [sys.executable, "-c", CAPTURE, f"to-{link.number}b"], f"{label}-capture")
    capture.wait_for("capturing")
    name = f"{label}c"
    client = start_client(lab, far, authority.client(name), settings, link.ipv4(1), program=program, label=name)
    client.wait_initialized()
    (server_address, *_), (client_address, *_) = server.vpn_addresses(), client.vpn_addresses()
    wait_reachable(lab, far, server_address)
    from_client = Secret(cipher, first_secret(client, "Encrypt"))
    from_server = Secret(cipher, first_secret(server, "Decrypt"))

    answered = ping(lab, far, server_address, count=PINGS).received
    slipped = from_client.seal(0, LATER_EPOCH, COUNTER, echo_request(client_address, server_address))
    port = int(server.status()[name].real_address.rpartition(":")[2])
    datagram = udp_over_ipv4((link.ipv4(2), port), (link.ipv4(1), PORT), slipped)
    lab.run(far, [sys.executable, "-c", INJECT, datagram.hex(), link.ipv4(1)])
    later = f"^to_openvpn .{{8}}{LATER_EPOCH:04x}"
    capture.wait_for(later)
    answered += ping(lab, far, server_address, count=PINGS).received
    for process in (client.process, server.process, capture):
        process.stop()
    if answered != 2 * PINGS:
        raise RuntimeError(f"{answered} of {2 * PINGS} pings were answered")
    captured = by_direction(capture.output())
    captured["from_openvpn"].remove(slipped.hex())
    return {
        "openvpn": client.process.wait_for(r"OpenVPN (\d\S+) ")[1],
        "cipher": cipher,
        "data_format": "epoch",
        "server_address": server_address,
        "client_address": client_address,
        "key_id": 0,
        "peer_id": 0,
        "encrypt_epoch_secret": from_server.first.hex(),
        "decrypt_epoch_secret": from_client.first.hex(),
        "from_openvpn": from_client.opened(captured["from_openvpn"]),
        "to_openvpn": from_server.opened(captured["to_openvpn"]),
    }


@dataclass(frozen=True, slots=True)
class Secret:
    """The secret of a direction's epoch 1, and all that follows from it (kept apart from the service's own code)."""

    cipher: str
    first: bytes

    def seal(self, peer_id: int, epoch: int, counter: int, plaintext: bytes) -> bytes:
        """A DATA_V2 packet of key-id 0."""
        header = HEADER.pack(9 << 27 | peer_id, epoch << 48 | counter)
        key, iv = self.data_key(epoch)
        return header + self._aead(key).encrypt(_nonce(iv, header), plaintext, header)

    def opened(self, packets: list[str]) -> list[dict[str, str | int]]:
        """The packets with what they say and hold. Raises InvalidTag for one that was not sealed by this secret."""
        return [self._opened(bytes.fromhex(packet)) for packet in packets]

    def _opened(self, packet: bytes) -> dict[str, str | int]:
        header, sealed = packet[: HEADER.size], packet[HEADER.size :]
        epoch = HEADER.unpack(header)[1] >> 48
        key, iv = self.data_key(epoch)
        plaintext = self._aead(key).decrypt(_nonce(iv, header), sealed, header)
        counter = HEADER.unpack(header)[1] & (1 << 48) - 1
        return {"epoch": epoch, "counter": counter, "packet": packet.hex(), "plaintext": plaintext.hex()}

    def data_key(self, epoch: int) -> tuple[bytes, bytes]:
        """The cipher's key and the implicit IV of an epoch."""
        secret = self.first
        for _ in range(1, epoch):
            secret = expand_label(secret, b"datakey upd", SECRET_BYTES)
        return expand_label(secret, b"data_key", KEY_BYTES[self.cipher]), expand_label(secret, b"data_iv", 12)

    def _aead(self, key: bytes) -> AESGCM | ChaCha20Poly1305:
        return ChaCha20Poly1305(key) if self.cipher == "CHACHA20-POLY1305" else AESGCM(key)


def expand_label(secret: bytes, label: bytes, length: int) -> bytes:
    """OVPN-Expand-Label with an empty context: HKDF-Expand (RFC 5869) as TLS 1.3 uses it, but for the prefix."""
    label = b"ovpn " + label
    info = struct.pack("!HB", length, len(label)) + label + b"\0"
    return HKDFExpand(SHA256(), length, info).derive(secret)


def _nonce(iv: bytes, header: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(iv, header[4:] + bytes(4), strict=True))


def first_secret(end: OpenVpn, name: str) -> bytes:
    """The secret of epoch 1 for what this end sends. Both ends' logs name the two as the client uses them."""
    logged = bytes.fromhex(end.process.wait_for(rf"Master {name} \(cipher, .*?\): ([0-9a-f ]+)$")[1])
    return logged if len(logged) == SECRET_BYTES else wait_until(lambda: _in_memory(end.pid, logged), "the secret")


def _in_memory(pid: int, beginning: bytes) -> bytes:
    """The 32 bytes in a process's memory that begin so and are no mere copy of the beginning."""
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        span = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw", line)
        if span is None:
            continue
        start, end = (int(number, 16) for number in span.groups())
        with Path(f"/proc/{pid}/mem").open("rb") as memory:
            memory.seek(start)
            content = memory.read(end - start)
        for match in re.finditer(re.escape(beginning), content):
            found = content[match.start() : match.start() + SECRET_BYTES]
            if len(found) == SECRET_BYTES and any(found[len(beginning) :]):
                return found
    return b""


def echo_request(source: str, destination: str) -> bytes:
    """A ping without payload."""
    message = struct.pack("!BBHHH", 8, 0, 0, 0x6570, 1)
    message = message[:2] + struct.pack("!H", checksum(message)) + message[4:]
    return ipv4(source, destination, 1, message)


def udp_over_ipv4(source: tuple[str, int], destination: tuple[str, int], payload: bytes) -> bytes:
    """A datagram with its headers, without a UDP checksum (RFC 768 leaves it to the sender)."""
    header = struct.pack("!HHHH", source[1], destination[1], 8 + len(payload), 0)
    return ipv4(source[0], destination[0], socket.IPPROTO_UDP, header + payload)


def ipv4(source: str, destination: str, protocol: int, payload: bytes) -> bytes:
    """An IPv4 packet (RFC 791)."""
    addresses = socket.inet_aton(source) + socket.inet_aton(destination)
    head = struct.pack("!BBHHHBB", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol)
    return head + struct.pack("!H", checksum(head + addresses)) + addresses + payload


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("run as root: it makes network namespaces")
    main()
