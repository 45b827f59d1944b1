"""One process of the laboratory: its output in a file, its end, its CPU time and memory.

Knows /proc and signals; must not know which programs there are, nor namespaces.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab.waiting import wait_until


class ProcessEndedError(RuntimeError):
    """A process ended while something was still expected of it; carries the end of its output."""


class Process:
    """A started program. stdout and stderr go to `log`; it has its own session, so a Ctrl-C of ours spares it."""

    def __init__(self, argv: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> None:
        self.log = log
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )
        self.pid = self._popen.pid

    @property
    def exit_code(self) -> int | None:
        """The exit status, a negative signal number if a signal ended it, None while it runs."""
        return self._popen.poll()

    def output(self) -> str:
        """All it has written so far."""
        return self.log.read_text(errors="replace")

    def wait_for(self, pattern: str, *, occurrence: int = 1, timeout_seconds: float = 15) -> re.Match[str]:
        """Waits for the nth line that matches. Raises TimeoutError or, if it failed before, ProcessEndedError.

        An end with status 0 is no failure: a daemon left behind may still write.
        """

        def look() -> re.Match[str] | None:
            failed = bool(self.exit_code)  # asked first: what was written before the end is then in the file
            matches = list(re.finditer(pattern, self.output(), re.MULTILINE))
            if len(matches) >= occurrence:
                return matches[occurrence - 1]
            if failed:
                raise ProcessEndedError(f"{self.log.name} ended with {self.exit_code}:\n{self._tail()}")
            return None

        try:
            match = wait_until(look, f"{pattern!r} in {self.log.name}", timeout_seconds=timeout_seconds)
        except TimeoutError as error:
            error.add_note(self._tail())
            raise
        assert match is not None
        return match

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal; to an ended process that is nothing."""
        self._popen.send_signal(number)

    def wait(self, timeout_seconds: float = 10) -> int:
        """Waits for the end and returns the exit code. Raises TimeoutError."""
        try:
            return self._popen.wait(timeout_seconds)
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(f"{self.log.name} (pid {self.pid}) has not ended:\n{self._tail()}") from error

    def stop(self, timeout_seconds: float = 10) -> int:
        """SIGTERM, and SIGKILL if that does not end it in time. Returns the exit code."""
        self.signal(signal.SIGTERM)
        try:
            return self.wait(timeout_seconds)
        except TimeoutError:
            self.signal(signal.SIGKILL)
            return self.wait()

    def _tail(self, lines: int = 25) -> str:
        return "\n".join(self.output().splitlines()[-lines:])


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads of a live process (not of its children), to the nanosecond.

    Raises ProcessLookupError when it is gone.
    """
    # clock_getcpuclockid(3), which Python lacks: the complement of the pid, then three bits for "process, CPU time".
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError as error:  # EINVAL: no such clock any more
        raise ProcessLookupError(f"process {pid} is gone") from error


def resident_bytes(pid: int) -> int:
    """Resident memory of a live process, shared pages included. Raises OSError when it is gone."""
    match = re.search(r"^VmRSS:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert match is not None  # only kernel threads and zombies have none
    return int(match[1]) * 1024


def is_running(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def command_line(pid: int) -> str:
    """The command line as text, empty when the process is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def parent(pid: int) -> int:
    """The parent's pid. Raises FileNotFoundError when the process is gone."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
