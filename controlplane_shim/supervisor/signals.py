"""Signals as something to read: front and supervisor block what concerns them and take it from a descriptor.

Knows signal masks and struct signalfd_siginfo. Must not know what a signal leads to. A signal that is blocked keeps
its disposition, so the program inherits all dispositions as the user left them. Standard library only.
"""

from __future__ import annotations

import os
import signal
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from controlplane_shim.supervisor import libc

SI_KERNEL = 0x80  # asm-generic/siginfo.h
_SIGINFO = struct.Struct("=Iii116x")  # ssi_signo, ssi_errno, ssi_code; 128 bytes in all
_READ_AT_ONCE = 16

# Python ignores these from its start; a program started from Python must not find them ignored.
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)


@dataclass(frozen=True, slots=True)
class Received:
    """One signal. from_kernel: sent by the kernel itself, such as by the terminal to its foreground group."""

    number: int
    from_kernel: bool


class SignalReader:
    """Reads blocked signals from a signalfd(2)."""

    def __init__(self, signals: Iterable[int]) -> None:
        self._fd = libc.signalfd(signals)

    def fileno(self) -> int:
        """The descriptor to poll; readable when a signal is pending."""
        return self._fd

    def read(self) -> list[Received]:
        """Takes what is pending; empty if nothing is."""
        try:
            data = os.read(self._fd, _SIGINFO.size * _READ_AT_ONCE)
        except BlockingIOError:
            return []
        return [Received(number, code == SI_KERNEL) for number, _errno, code in _SIGINFO.iter_unpack(data)]

    def close(self) -> None:
        """Closes the descriptor; the signals stay blocked."""
        os.close(self._fd)


def block(signals: Iterable[int]) -> frozenset[int]:
    """Blocks the signals and returns the mask as it was before."""
    return frozenset(int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, signals))


def encode_mask(mask: Iterable[int]) -> str:
    """A mask for a command line: numbers with commas between, empty for none."""
    return ",".join(str(number) for number in sorted(mask))


def decode_mask(text: str) -> frozenset[int]:
    """The reverse of encode_mask. Raises ValueError."""
    return frozenset(int(number) for number in text.split(",") if number)


def restore_for_exec(mask: Iterable[int]) -> None:
    """Undoes what Python did to dispositions and sets the mask; a pending signal may end the process here."""
    for number in _IGNORED_BY_PYTHON:
        signal.signal(number, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
