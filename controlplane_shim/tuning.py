"""What the user of the shim asks of the data channel because OpenVPN never tells it to a driver.

Knows names and defaults only. Must not know what is done about them: adoption.py hands them on.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tuning:
    """The same for all devices of one OpenVPN.

    mss: what TCP over IPv4 inside the tunnel is lowered to, in bytes; 0: left alone. copy_dscp: packets over UDP get
    the DSCP of what they carry.
    """

    mss: int = 0
    copy_dscp: bool = False
