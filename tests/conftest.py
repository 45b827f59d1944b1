"""What holds for all tests: no verdict depends on how fast the machine is, nor on what signals were ignored before."""

from __future__ import annotations

from hypothesis import settings

from lab.interrupts import raise_on_ending_signals

settings.register_profile("any-speed", deadline=None)
settings.load_profile("any-speed")

# An interrupt tidies up. And what a test starts must not inherit that nohup(1), or a shell's &, ignores signals.
raise_on_ending_signals()
