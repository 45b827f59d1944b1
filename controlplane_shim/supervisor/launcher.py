"""The launcher: puts itself under the filter, hands the listener over, then becomes the program.

Knows descriptor limits, the filter and exec. Must not know sessions or netlink. Exec'd by the supervisor as
`python -m controlplane_shim.supervisor.launcher FD SIGNAL_MASK PROGRAM ARGS…`, FD being one end of a SOCK_SEQPACKET
pair. Says b"listener FIRST PAST" with the listener, or b"unsupervised REASON"; goes on at b"go". Standard library only.
"""

from __future__ import annotations

import errno
import os
import resource
import socket
import sys
from collections.abc import Sequence

from controlplane_shim.supervisor import architecture, bpf_filter, libc, processes, signals

GO = b"go"

EXIT_NOT_FOUND = 127
EXIT_NOT_EXECUTABLE = 126
EXIT_SUPERVISOR_GONE = 70

# Descriptors close to the top cost memory in the program's table (8 bytes each), so the top is not sought beyond this.
MAX_DESCRIPTORS = 65536
INJECTED_DESCRIPTORS = 1024

_FLAG_NEW_LISTENER = 1 << 3
# Without this a signal interrupts a notified call at any time, and it is started again: it would run twice, and under
# a fast timer never end. Linux 5.19.
_FLAG_WAIT_KILLABLE_RECV = 1 << 5


def injected_range(soft_limit: int) -> range:
    """The descriptors that injected sockets get: the topmost below the limit, at most a quarter of all."""
    top = min(soft_limit, MAX_DESCRIPTORS)
    return range(top - min(INJECTED_DESCRIPTORS, top // 4), top)


def raise_descriptor_limit() -> int:
    """Raises the soft RLIMIT_NOFILE so that injected descriptors take none of the program's; the limit that holds."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, MAX_DESCRIPTORS)
    if soft >= wanted:
        return soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def install_filter(injected: range) -> int:
    """Puts this process under the filter; the listener. Raises OSError.

    EBUSY: a filter above has a listener already; EINVAL: the kernel is older than 5.19; ENOSYS: it has no seccomp.
    """
    machine = architecture.current()
    program = bpf_filter.build(machine, injected)
    flags = _FLAG_NEW_LISTENER | _FLAG_WAIT_KILLABLE_RECV
    try:
        return libc.install_seccomp_filter(machine.seccomp, program, flags)
    except OSError as error:
        if error.errno != errno.EACCES:
            raise
    libc.set_no_new_privileges()  # the price of not having CAP_SYS_ADMIN
    return libc.install_seccomp_filter(machine.seccomp, program, flags)


def execute(command: Sequence[str]) -> int:
    """Becomes the program; returns, with a shell's exit code, only if that fails."""
    try:
        os.execvpe(command[0], list(command), processes.original_environment())  # noqa: S606 - no shell is wanted
    except OSError as error:
        missing = error.errno == errno.ENOENT
        reason = "command not found" if missing and "/" not in command[0] else error.strerror
        sys.stderr.write(f"ovpn-shim: {command[0]}: {reason}\n")
        return EXIT_NOT_FOUND if missing else EXIT_NOT_EXECUTABLE


def supervise(control: socket.socket) -> bool:
    """Comes under the filter, hands the listener over, waits for the word; False if the supervisor has gone."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        injected = injected_range(raise_descriptor_limit())
        listener = install_filter(injected)
    except OSError as error:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        message, descriptors = f"unsupervised {error.strerror or error}", []
    else:
        message, descriptors = f"listener {injected.start} {injected.stop}", [listener]
    try:
        socket.send_fds(control, [message.encode()], descriptors)
        return control.recv(len(GO)) == GO
    except (BrokenPipeError, ConnectionResetError):
        return False
    finally:
        for fd in descriptors:
            os.close(fd)


def main(arguments: Sequence[str]) -> int:
    """Runs the launcher; the exit code if the program could not be executed."""
    fd, mask, *command = arguments
    with socket.socket(fileno=int(fd)) as control:
        control.set_inheritable(False)
        if not supervise(control):
            return EXIT_SUPERVISOR_GONE
    signals.restore_for_exec(signals.decode_mask(mask))
    return execute(command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
