"""Feeds the framing of TCP arbitrary and half-genuine streams.

Run as python tests/fuzz/fuzz_tcp_framing.py -max_total_time=60.

Nothing may raise or end the process, the compiled code must find what the readable code finds, and no order of packets
and partial writes may tear a frame.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["dataplane.transport.tcp_framing"]):
    from dataplane.transport.tcp_framing import PACKET_MIN, FrameCutter, FrameQueue, frame_of

from dataplane.fastpath.tcp_framing import Queue, packets_in


def check_cutting(data: atheris.FuzzedDataProvider) -> None:
    """A stream, in pieces and at once."""
    pieces = []
    while data.remaining_bytes():
        piece = bytes(data.ConsumeBytes(data.ConsumeIntInRange(0, 300)))
        pieces.append(frame_of(piece) if data.ConsumeBool() else piece)
    cutter = FrameCutter()
    packets = [packet for piece in pieces for packet in cutter.feed(piece)]
    assert (packets, cutter.is_broken) == packets_in(b"".join(pieces))[::2]


def check_queue(data: atheris.FuzzedDataProvider) -> None:
    """Packets of two sources, and a stream that takes any number of bytes."""
    readable, compiled = FrameQueue(), Queue()
    streams = {readable: b"", compiled: b""}
    added: dict[bool, list[bytes]] = {True: [], False: []}  # by whether it is of the control channel
    while data.remaining_bytes():
        if data.ConsumeBool():
            take(streams, data.ConsumeIntInRange(0, 3000))
            continue
        is_control = data.ConsumeBool()
        packet = bytes([is_control]) * data.ConsumeIntInRange(PACKET_MIN, 2000)
        added[is_control].append(packet)
        in_order = is_control and data.ConsumeBool()
        for queue in streams:
            if is_control:
                queue.add_control(packet, in_order=in_order)
            else:
                queue.add_data(packet)
    while not readable.is_empty:
        take(streams, 1 << 20)
    assert streams[readable] == streams[compiled]
    packets = FrameCutter().feed(streams[readable])
    assert {source: [packet for packet in packets if packet[0] == source] for source in added} == added


def take(streams: dict[FrameQueue | Queue, bytes], count: int) -> None:
    """Each stream takes so many bytes, or what there is of them; as many as the readable queue offers."""
    offered = [b"".join(queue.pieces()) for queue in streams]
    count = min(count, *map(len, offered))
    for queue, waiting in zip(streams, offered, strict=True):
        queue.took(count)
        streams[queue] += waiting[:count]


def target(data: bytes) -> None:
    """One input of the fuzzer."""
    provider = atheris.FuzzedDataProvider(data)
    if provider.ConsumeBool():
        check_cutting(provider)
    else:
        check_queue(provider)


if __name__ == "__main__":
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()
