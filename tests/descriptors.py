"""What this process has open, for tests after which nothing may be left open."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def open_fds() -> set[str]:
    """The descriptors of this process, each with what it is of.

    What is new is to be looked at, not how many there are: a channel of an earlier test may close its own at any time.
    """
    found = set()
    for path in list(Path("/proc/self/fd").iterdir()):
        with suppress(FileNotFoundError):  # that of the listing itself
            found.add(f"{path.name} {path.readlink()}")
    return found
