"""Collects everything that is wrong with a request, so that the caller learns it all at once.

Knows dotted field paths. Must not know what a field means, protobuf or gRPC.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Violation:
    """A wrong field: its dotted path in the request, and what is right. Never quotes key bytes."""

    field: str
    description: str


class InvalidRequest(Exception):
    """A request that is wrong whatever the state of the service; at least one violation."""

    def __init__(self, violations: tuple[Violation, ...]) -> None:
        super().__init__(f"{len(violations)} violations, the first in {violations[0].field}")
        self.violations = violations


class Violations:
    """What was found wrong so far. `under("remote")` reports to the same place, with longer paths."""

    def __init__(self, prefix: str = "", found: list[Violation] | None = None) -> None:
        self._prefix = prefix
        self._found = [] if found is None else found

    def under(self, field: str) -> Violations:
        """A reporter for the fields of the message in `field`."""
        return Violations(f"{self._prefix}{field}.", self._found)

    def add(self, field: str, description: str) -> None:
        """Reports a field of this message."""
        self._found.append(Violation(self._prefix + field, description))

    def raise_if_any(self) -> None:
        """Raises InvalidRequest with all that was reported."""
        if self._found:
            raise InvalidRequest(tuple(self._found))
