"""TUN interfaces, in a network namespace of the test's own."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Callable
from typing import Any

import pytest

from controlplane_shim.tun import delete_interface, interface_exists, open_tun

TUNGETIFF = 0x800454D2
IFF_TUN_NO_PI_VNET_HDR = 0x5001

InNamespace = Callable[[Callable[[], Any]], Any]


def flags_of(fd: int) -> int:
    request = bytearray(40)
    fcntl.ioctl(fd, TUNGETIFF, request)
    (flags,) = struct.unpack_from("16xH", request)
    return int(flags)


def error_of(function: Callable[..., object], *arguments: object) -> int | None:
    try:
        function(*arguments)
    except OSError as error:
        return error.errno
    return None


@pytest.mark.root
def test_the_interface_lives_as_long_as_its_descriptor(in_namespace: InNamespace) -> None:
    def scenario() -> list[bool]:
        before = interface_exists("tun7")
        fd = open_tun("tun7")
        during = interface_exists("tun7")
        os.close(fd)
        return [before, during, interface_exists("tun7")]

    assert in_namespace(scenario) == [False, True, False]


@pytest.mark.root
def test_it_carries_ip_packets_behind_virtio_headers_and_never_blocks(in_namespace: InNamespace) -> None:
    fd = in_namespace(lambda: open_tun("tun7"))
    try:
        assert flags_of(fd) & 0x5FFF == IFF_TUN_NO_PI_VNET_HDR
        assert not os.get_blocking(fd)
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


@pytest.mark.root
def test_a_taken_name_is_refused_even_if_it_is_a_tun(in_namespace: InNamespace) -> None:
    def scenario() -> int | None:
        fd = open_tun("tun7")
        try:
            return error_of(open_tun, "tun7")
        finally:
            os.close(fd)

    assert in_namespace(scenario) == errno.EBUSY


def test_a_name_longer_than_15_bytes_is_not_cut_but_refused() -> None:
    assert error_of(open_tun, "a" * 16) == errno.ENAMETOOLONG


@pytest.mark.root
def test_deletion_does_not_wait_for_other_holders_of_the_descriptor(in_namespace: InNamespace) -> None:
    def scenario() -> bool:
        fd = open_tun("tun7")
        copy = os.dup(fd)
        delete_interface(index_of("tun7"))
        exists = interface_exists("tun7")
        os.close(fd)
        os.close(copy)
        return exists

    assert in_namespace(scenario) is False


@pytest.mark.root
def test_deleting_an_interface_that_is_gone_is_no_error(in_namespace: InNamespace) -> None:
    in_namespace(lambda: delete_interface(4711))


def index_of(name: str) -> int:
    import socket

    return socket.if_nametoindex(name)
