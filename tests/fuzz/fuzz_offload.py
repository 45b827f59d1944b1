"""Feeds splitting and merging arbitrary and half-genuine input: python tests/fuzz/fuzz_offload.py -max_total_time=60.

Nothing may raise or end the process, and the compiled code must give what the readable code gives. Coverage of the
readable code leads the fuzzer; the compiled code is watched by `make fuzz`, which runs this under the sanitizers.
"""

from __future__ import annotations

import sys
from random import Random

import atheris

with atheris.instrument_imports(include=["dataplane.tun"]):
    from dataplane.tun.merge import merge as readable_merge
    from dataplane.tun.split import split as readable_split
    from dataplane.tun.virtio import GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM, VirtioHeader

from dataplane.fastpath.merge import PacketMerger
from dataplane.fastpath.split import split
from tests.tun.packets import ACK, FIN, ODDITIES, PSH, TCP, UDP, Packet, patched

FLOWS = 3
ENOUGH = 2000
MERGERS = {(tcp, udp): PacketMerger(tcp=tcp, udp=udp) for tcp in (False, True) for udp in (False, True)}


def damaged(data: atheris.FuzzedDataProvider, packet: bytes) -> bytes:
    """The packet with a byte changed, cut, or as it is."""
    choice = data.ConsumeIntInRange(0, 7)
    if choice == 0:
        return packet[: data.ConsumeIntInRange(0, len(packet))]
    if choice == 1:
        return patched(packet, data.ConsumeIntInRange(0, len(packet) - 1), bytes(data.ConsumeBytes(1)))
    return packet


def any_packet(data: atheris.FuzzedDataProvider) -> Packet:
    """A TCP or UDP packet with options."""
    version, protocol = data.PickValueInList([4, 6]), data.PickValueInList([TCP, UDP])
    return Packet(
        version=version,
        protocol=protocol,
        ip_options=bytes(4 * data.ConsumeIntInRange(0, 10)) if version == 4 else b"",
        options=bytes(4 * data.ConsumeIntInRange(0, 10)),
        flags=data.ConsumeIntInRange(0, 255),
        identification=data.PickValueInList([0, 0xFFFE]),
        sequence=data.PickValueInList([0, 0xFFFFFFFE]),
        payload=bytes(data.ConsumeBytes(data.ConsumeIntInRange(0, 40))),
    )


def frame_of(data: atheris.FuzzedDataProvider) -> bytes:
    """A frame of a packet, with a header that fits it or nearly so; or any bytes."""
    if data.ConsumeIntInRange(0, 7) == 0:
        return bytes(data.ConsumeBytes(100))
    packet = any_packet(data)
    kinds = {(TCP, 4): GSO_TCPV4, (TCP, 6): GSO_TCPV6}
    header = VirtioHeader(
        flags=NEEDS_CSUM,
        gso_type=kinds.get((packet.protocol, packet.version), GSO_UDP_L4) | data.PickValueInList([0, GSO_ECN]),
        gso_size=data.ConsumeIntInRange(1, 20),
        csum_start=packet.transport,
        csum_offset=16 if packet.protocol == TCP else 6,
    )
    changes = [
        {"flags": 0},
        {"gso_type": GSO_NONE},
        {"gso_type": data.ConsumeIntInRange(0, 255)},
        {"gso_size": data.PickValueInList([0, 0xFFFF])},
        {"csum_start": data.ConsumeIntInRange(0, 200)},
        {"csum_offset": data.PickValueInList([0, 6, 16, 0xFFFF])},
        {"gso_type": GSO_NONE, "csum_start": data.ConsumeIntInRange(0, 200)},
    ]
    header = header._replace(**data.PickValueInList([{}] * len(changes) + changes))
    return damaged(data, header.pack() + packet.pack())


def batch_of(data: atheris.FuzzedDataProvider) -> list[bytes]:
    """Packets of a few flows, each where the one before ended, but for some that are odd, damaged or no packets."""
    flows = [any_packet(data).with_(ports=(port, 9), ip_options=b"", flags=ACK) for port in range(FLOWS)]
    batch: list[bytes] = []
    for _ in range(data.ConsumeIntInRange(0, 24)):
        which = data.ConsumeIntInRange(0, FLOWS - 1)
        size = data.PickValueInList([1, 8, 8, 8, 9])
        flags = data.PickValueInList([ACK, ACK, ACK, ACK | PSH, ACK | FIN, data.ConsumeIntInRange(0, 255)])
        packet = flows[which].with_(payload=bytes(size), flags=flags)
        flows[which] = packet.with_(
            sequence=(packet.sequence + size) & 0xFFFFFFFF, identification=(packet.identification + 1) & 0xFFFF
        )
        odd = data.PickValueInList([{}] * len(ODDITIES) + ODDITIES)
        batch.append(damaged(data, packet.with_(**odd).pack()))
        if data.ConsumeIntInRange(0, 15) == 0:
            batch.append(bytes(data.ConsumeBytes(60)))
    return batch


def check_split(data: atheris.FuzzedDataProvider) -> None:
    """One frame."""
    frame = frame_of(data)
    assert split(frame) == readable_split(frame)


def check_merge(data: atheris.FuzzedDataProvider) -> None:
    """Some batches, one after the other with the same Merger."""
    tcp, udp = (True, True) if data.ConsumeBool() else (data.ConsumeBool(), data.ConsumeBool())
    merger = MERGERS[tcp, udp]
    packets = batch_of(data)
    copies = [bytearray(packet) for packet in packets]
    merger.merge(copies)
    expected = [
        (frame.data, frame.indexes[0], len(frame.indexes), sum(len(packets[index]) for index in frame.indexes))
        for frame in readable_merge(packets, tcp=tcp, udp=udp)
    ]
    assert merger.frames() == expected


def target(data: bytes) -> None:
    """One input of the fuzzer.

    It stands for as many bytes as are asked for: the fuzzer cannot find out how many it takes to build a batch, all the
    less under the sanitizers, where it sees no coverage.
    """
    provider = atheris.FuzzedDataProvider(Random(data).randbytes(ENOUGH) + data)  # numbers are taken from the end
    if provider.ConsumeBool():
        check_split(provider)
    else:
        check_merge(provider)


if __name__ == "__main__":
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()
