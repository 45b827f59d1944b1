"""What a lab that was closed has left on the machine. Knows where its traces would be; must not know who asks."""

from __future__ import annotations

from pathlib import Path

from lab.lab import MARK, socket_directory
from lab.netns import ip
from lab.processes import command_line


def left_behind(lab_name: str) -> list[str]:
    """Namespaces, directories and processes of the lab of this name that are still there."""
    directory = socket_directory(lab_name)
    namespaces = [line.split()[0] for line in ip("netns", "list").splitlines() if line.startswith(lab_name)]
    return [*namespaces, *([str(directory)] if directory.exists() else []), *_processes(lab_name)]


def _processes(lab_name: str) -> list[str]:
    """Every descendant of a process that the lab started carries its mark in the environment."""
    mark = f"{MARK}={lab_name}".encode()
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            environment = (directory / "environ").read_bytes()
        except OSError:  # it has just ended
            continue
        if mark in environment.split(b"\0"):
            found.append(f"{directory.name} {command_line(int(directory.name))}")
    return found
