"""What the figures were measured on: machine, kernel, versions. Knows where each is told; must not know the figures."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from bench import wireguard_package
from bench.site import WIREGUARD_DIRECTORY


def describe() -> dict[str, str]:
    """Names and values, in the order in which they are worth reading."""
    wireguard = WIREGUARD_DIRECTORY
    return {
        "processor": f"{_field('/proc/cpuinfo', 'model name')}, {os.cpu_count()} CPUs for everything",
        "memory": f"{int(_field('/proc/meminfo', 'MemTotal').split()[0]) >> 20} GiB",
        "kernel": f"Linux {platform.release()} {platform.machine()}",
        "system": platform.freedesktop_os_release()["PRETTY_NAME"],
        "ovpn-dataplane": f"{version('ovpn-dataplane')}{_commit()}",
        "OpenVPN": _said(["openvpn", "--version"], r"OpenVPN (\S+)"),
        "OpenSSL": _said(["openvpn", "--version"], r"OpenSSL ([\d.]+)"),
        "wireguard-go": wireguard_package.version(wireguard) if wireguard.exists() else "-",
        "iperf3": _said(["iperf3", "--version"], r"iperf (\S+)"),
        "Python": sys.version.split()[0],
    }


def _field(path: str, name: str) -> str:
    match = re.search(rf"^{name}\s*:\s*(.+)$", Path(path).read_text(), re.MULTILINE)
    return match[1] if match else "unknown"


def _said(argv: list[str], pattern: str) -> str:
    match = re.search(pattern, subprocess.run(argv, check=False, capture_output=True, text=True).stdout)
    return match[1] if match else "unknown"


def _commit() -> str:
    argv = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, cwd=Path(__file__).parent)
    return f" at {done.stdout.strip()}" if done.returncode == 0 else ""
