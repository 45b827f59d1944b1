from __future__ import annotations

import sys

from dataplane.tun.virtio import FRAME_MAX, HEADER_SIZE, VirtioHeader


def test_header_has_10_bytes_in_the_order_of_the_machine() -> None:
    packed = VirtioHeader(flags=1, gso_type=4, hdr_len=54, gso_size=1400, csum_start=40, csum_offset=16).pack()
    numbers = [54, 1400, 40, 16]
    assert packed == b"\x01\x04" + b"".join(number.to_bytes(2, sys.byteorder) for number in numbers)
    assert (len(packed), HEADER_SIZE, FRAME_MAX) == (10, 10, 65545)


def test_header_of_a_plain_packet_is_all_zero() -> None:
    assert VirtioHeader().pack() == bytes(10)


def test_header_comes_back_from_its_bytes() -> None:
    header = VirtioHeader(1, 5, 48, 1200, 40, 6)
    assert VirtioHeader.unpack(header.pack() + b"the packet") == header
