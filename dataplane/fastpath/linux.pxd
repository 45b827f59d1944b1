# What the C library and Linux declare, and Cython does not: sockets in batches, epoll, clocks. Values are the headers'.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from posix.time cimport timespec
from posix.uio cimport iovec

cdef extern from "<sys/socket.h>" nogil:
    enum: AF_INET
    enum: SOL_SOCKET
    enum: SO_ERROR
    enum: MSG_DONTWAIT
    enum: MSG_ERRQUEUE
    enum: MSG_NOSIGNAL

    ctypedef uint32_t socklen_t
    struct msghdr:
        void* msg_name
        socklen_t msg_namelen
        iovec* msg_iov
        size_t msg_iovlen
        void* msg_control
        size_t msg_controllen
        int msg_flags
    struct mmsghdr:
        msghdr msg_hdr
        unsigned int msg_len
    struct cmsghdr:
        size_t cmsg_len
        int cmsg_level
        int cmsg_type

    size_t CMSG_LEN(size_t size)
    size_t CMSG_SPACE(size_t size)
    uint8_t* CMSG_DATA(cmsghdr* head)
    cmsghdr* CMSG_FIRSTHDR(msghdr* message)
    cmsghdr* CMSG_NXTHDR(msghdr* message, cmsghdr* head)

    int recvmmsg(int fd, mmsghdr* messages, unsigned int count, int flags, timespec* timeout)
    int sendmmsg(int fd, mmsghdr* messages, unsigned int count, int flags)
    ssize_t recv(int fd, void* buffer, size_t size, int flags)
    ssize_t send(int fd, const void* buffer, size_t size, int flags)
    ssize_t recvmsg(int fd, msghdr* message, int flags)
    ssize_t sendmsg(int fd, const msghdr* message, int flags)
    int getsockopt(int fd, int level, int option, void* value, socklen_t* size)

cdef extern from "<netinet/in.h>" nogil:
    enum: IPPROTO_IP
    enum: IPPROTO_IPV6
    enum: IPPROTO_UDP
    enum: IP_PKTINFO
    enum: IPV6_PKTINFO

    struct sockaddr_in:
        pass
    struct sockaddr_in6:
        uint32_t sin6_scope_id
    struct in_addr:
        uint32_t s_addr
    struct in6_addr:
        uint8_t s6_addr[16]
    struct in_pktinfo:
        int ipi_ifindex
        in_addr ipi_spec_dst
        in_addr ipi_addr
    struct in6_pktinfo:
        in6_addr ipi6_addr
        unsigned int ipi6_ifindex

cdef extern from "<netinet/udp.h>" nogil:
    enum: UDP_SEGMENT
    enum: UDP_GRO

cdef extern from "<sys/epoll.h>" nogil:
    enum: EPOLL_CLOEXEC
    enum: EPOLL_CTL_ADD
    enum: EPOLL_CTL_DEL
    enum: EPOLL_CTL_MOD
    enum: EPOLLIN
    enum: EPOLLOUT
    enum: EPOLLERR
    enum: EPOLLHUP
    enum: EPOLLRDHUP

    union epoll_data:
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data data

    int epoll_create1(int flags)
    int epoll_ctl(int epoll_fd, int operation, int fd, epoll_event* event)
    int epoll_wait(int epoll_fd, epoll_event* events, int limit, int timeout_ms)

cdef extern from "<sys/prctl.h>" nogil:
    enum: PR_SET_TIMERSLACK
    int prctl(int option, unsigned long argument)
