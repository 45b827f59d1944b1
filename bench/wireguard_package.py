"""Debian unstable's wireguard-go: a static binary with UDP GSO and GRO, which Debian 12's own does not have.

Knows apt: the package comes from the mirror that this machine uses anyway, its signature is checked as for every other
package, and it is unpacked, not installed. Must not know what the program is for.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import Final

PACKAGE: Final = "wireguard-go"
OLDEST: Final = "0.0.20230223"
"""The first release with UDP GSO and GRO."""

KEYRING: Final = "/usr/share/keyrings/debian-archive-keyring.gpg"
DOWNLOAD_SECONDS: Final = 120


class PackageUnavailable(Exception):
    """wireguard-go could not be had; says why."""


def fetch(directory: Path) -> Path:
    """Returns the program, after downloading it into `directory` unless it is there. Raises PackageUnavailable."""
    program = directory / "usr/bin/wireguard-go"
    if not program.exists():
        directory.mkdir(parents=True, exist_ok=True)
        try:
            package = _download(directory)
            _run(["dpkg-deb", "--extract", str(package), str(directory)], directory)
        except (subprocess.SubprocessError, FileNotFoundError) as error:
            raise PackageUnavailable(f"apt could not fetch it: {_reason(error)}") from error
    if version(directory) < OLDEST:  # dates of the same length: their order is that of the text
        raise PackageUnavailable(f"{version(directory)} is older than {OLDEST}, the first with offloads")
    return program


def version(directory: Path) -> str:
    """The version of the package that was downloaded there."""
    return _package(directory).name.split("_")[1]


def _download(directory: Path) -> Path:
    """The package, fetched with lists of apt's own that are thrown away: the machine's sources stay as they are."""
    with tempfile.TemporaryDirectory() as scratch:
        sources, lists, cache = (Path(scratch, name) for name in ("unstable.list", "lists", "cache"))
        sources.write_text(f"deb [signed-by={KEYRING}] {_mirror(directory)} unstable main\n")
        for apart in (lists, cache / "archives"):
            (apart / "partial").mkdir(parents=True)
        settings = {
            "Dir::Etc::SourceList": sources,
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::State::Lists": lists,
            "Dir::Cache": cache,
            "Acquire::Languages": "none",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
            "APT::Sandbox::User": "root",
        }
        options = [word for key, value in settings.items() for word in ("--option", f"{key}={value}")]
        _run(["apt-get", "--quiet", *options, "update"], directory)
        _run(["apt-get", "--quiet", *options, "download", PACKAGE], directory)
    return _package(directory)


def _mirror(directory: Path) -> str:
    """The archive that the machine's own Debian packages come from."""
    targets = _run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Label: Debian", "Component: main"], directory
    )
    if not targets:
        raise PackageUnavailable("this machine's apt knows no Debian archive (or `apt-get update` was never run)")
    return targets.splitlines()[0]


def _package(directory: Path) -> Path:
    (package,) = directory.glob(f"{PACKAGE}_*.deb")
    return package


def _run(argv: list[str], directory: Path) -> str:
    done = subprocess.run(argv, check=True, cwd=directory, capture_output=True, text=True, timeout=DOWNLOAD_SECONDS)
    return done.stdout


def _reason(error: Exception) -> str:
    """The last line of what a program complained of."""
    complaint = error.stderr if isinstance(error, subprocess.CalledProcessError) else ""
    return (complaint.strip().splitlines() or [str(error)])[-1]
