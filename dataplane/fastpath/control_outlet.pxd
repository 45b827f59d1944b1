# Packets of the control channel, back to the control plane; twin of dataplane/transport/control_outlet.py.

from dataplane.fastpath.span cimport Span
from dataplane.fastpath.udp_receive cimport Datagram

# Hands over one packet, which came as part of `datagram`. False: there was no room for it.
cdef bint send_control(int fd, Span packet, const Datagram* datagram) noexcept nogil
