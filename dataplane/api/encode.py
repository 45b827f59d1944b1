"""From the engine's views and events to protobuf.

Knows both shapes. Must not know requests, errors or key bytes: a KeyView holds none.
"""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from ovpn.dataplane.v1 import common_pb2, device_pb2, event_pb2, key_pb2, peer_pb2, socket_pb2

from dataplane.api.enums import (
    CIPHERS,
    DATA_FORMATS,
    DEL_REASONS,
    DEVICE_STATES,
    FLOAT_POLICIES,
    FRAGMENTATION_POLICIES,
    KEY_LIMITS,
    KEY_SLOTS,
    MODES,
    SOCKET_PROTOCOLS,
)
from dataplane.engine.types import (
    DeviceCreated,
    DeviceDeleted,
    DeviceView,
    Endpoint,
    Event,
    KeyLimitNear,
    KeySwapNeeded,
    KeyView,
    PeerCounters,
    PeerCreated,
    PeerDeleted,
    PeerFloatAsked,
    PeerFloated,
    PeerView,
    SocketClosed,
    SocketView,
    WorkerRestarted,
)


def encode_device(view: DeviceView) -> device_pb2.Device:
    """A device with its output-only fields."""
    return device_pb2.Device(
        name=view.name,
        interface_name=view.interface_name,
        mode=MODES[view.mode],
        mtu=view.mtu,
        addresses=[str(address) for address in view.addresses],
        admin_up=view.admin_up,
        network_namespace=view.network_namespace,
        state=DEVICE_STATES[view.state],
        peer_count=view.peer_count,
        drops=_drops(view.drops),
        worker_pid=view.worker_pid,
        skip_source_check=view.skip_source_check,
        client_to_client=view.client_to_client,
        forward_multicast=view.forward_multicast,
        follow_kernel_routes=view.follow_kernel_routes,
        tcp_mss_ipv4=view.tcp_mss_ipv4,
        tcp_mss_ipv6=view.tcp_mss_ipv6,
        float_policy=FLOAT_POLICIES[view.float_policy],
    )


def encode_socket(view: SocketView) -> socket_pb2.Socket:
    """A socket with its output-only fields."""
    return socket_pb2.Socket(
        device=view.device,
        name=view.name,
        address=str(view.address),
        port=view.port,
        ipv6_only=view.ipv6_only,
        adopted=view.adopted,
        peer_count=view.peer_count,
        has_control_outlet=view.has_control_outlet,
        mark=view.options.mark,
        bind_to_interface=view.options.bind_to_interface,
        receive_buffer_bytes=view.options.receive_buffer_bytes,
        send_buffer_bytes=view.options.send_buffer_bytes,
        copy_dscp=view.options.copy_dscp,
        fragmentation=FRAGMENTATION_POLICIES[view.options.fragmentation],
        protocol=SOCKET_PROTOCOLS[view.protocol],
        remote=None if view.remote is None else _endpoint(view.remote),
    )


def encode_peer(view: PeerView) -> peer_pb2.Peer:
    """A peer with its output-only fields."""
    spec = view.spec
    return peer_pb2.Peer(
        device=spec.device,
        peer_id=spec.peer_id,
        socket=spec.socket,
        remote=None if spec.remote is None else _endpoint(spec.remote),
        local_address=str(spec.local_address or ""),
        vpn_ipv4=str(spec.vpn_ipv4 or ""),
        vpn_ipv6=str(spec.vpn_ipv6 or ""),
        keepalive_interval=Duration(seconds=spec.keepalive_interval_s),
        keepalive_timeout=Duration(seconds=spec.keepalive_timeout_s),
        counters=encode_counters(view.counters),
        create_revision=view.create_revision,
        create_time=_timestamp(view.create_time_ns),
        last_receive_time=_timestamp(view.last_receive_time_ns),
        last_send_time=_timestamp(view.last_send_time_ns),
        tx_id=spec.peer_id if spec.tx_id is None else spec.tx_id,
        routes=map(str, spec.routes),
        tcp_mss_ipv4=spec.tcp_mss_ipv4,
        tcp_mss_ipv6=spec.tcp_mss_ipv6,
    )


def encode_counters(counters: PeerCounters) -> common_pb2.PeerCounters:
    """Counters; reasons with no drops are left out."""
    return common_pb2.PeerCounters(
        vpn_rx=common_pb2.TrafficCounter(bytes=counters.vpn_rx_bytes, packets=counters.vpn_rx_packets),
        vpn_tx=common_pb2.TrafficCounter(bytes=counters.vpn_tx_bytes, packets=counters.vpn_tx_packets),
        link_rx=common_pb2.TrafficCounter(bytes=counters.link_rx_bytes, packets=counters.link_rx_packets),
        link_tx=common_pb2.TrafficCounter(bytes=counters.link_tx_bytes, packets=counters.link_tx_packets),
        drops=_drops(counters.drops),
    )


def encode_key(view: KeyView) -> key_pb2.Key:
    """What is known of a key."""
    return key_pb2.Key(
        slot=KEY_SLOTS[view.slot],
        key_id=view.key_id,
        cipher=CIPHERS[view.cipher],
        key_bits=view.key_bits,
        sent_packet_ids=view.sent_packet_ids,
        data_format=DATA_FORMATS[view.data_format],
        send_epoch=view.send_epoch,
    )


def encode_event(instance_id: str, event: Event) -> event_pb2.WatchResponse:
    """A change."""
    response = event_pb2.WatchResponse(instance_id=instance_id, revision=event.revision)
    match event:
        case DeviceCreated():
            response.device_created.CopyFrom(encode_device(event.device))
        case DeviceDeleted():
            response.device_deleted.device = event.device
        case PeerCreated():
            response.peer_created.CopyFrom(encode_peer(event.peer))
        case PeerDeleted():
            response.peer_deleted.CopyFrom(_peer_deleted(event))
        case PeerFloated():
            response.peer_floated.CopyFrom(
                event_pb2.PeerFloated(device=event.device, peer_id=event.peer_id, remote=_endpoint(event.remote))
            )
        case PeerFloatAsked():
            response.peer_float_asked.CopyFrom(
                event_pb2.PeerFloatAsked(
                    device=event.device,
                    peer_id=event.peer_id,
                    remote=_endpoint(event.remote),
                    asked_remote=_endpoint(event.asked_remote),
                    asked_socket=event.asked_socket,
                )
            )
        case KeySwapNeeded():
            response.key_swap_needed.CopyFrom(
                event_pb2.KeySwapNeeded(device=event.device, peer_id=event.peer_id, key_id=event.key_id)
            )
        case KeyLimitNear():
            response.key_limit_near.CopyFrom(
                event_pb2.KeyLimitNear(
                    device=event.device,
                    peer_id=event.peer_id,
                    key_id=event.key_id,
                    limit=KEY_LIMITS[event.limit],
                )
            )
        case SocketClosed():
            response.socket_closed.CopyFrom(
                event_pb2.SocketClosed(device=event.device, socket=event.socket, reason=DEL_REASONS[event.reason])
            )
        case WorkerRestarted():
            response.worker_restarted.CopyFrom(
                event_pb2.WorkerRestarted(device=event.device, worker_pid=event.worker_pid)
            )
    return response


def _peer_deleted(event: PeerDeleted) -> event_pb2.PeerDeleted:
    return event_pb2.PeerDeleted(
        device=event.device,
        peer_id=event.peer_id,
        reason=DEL_REASONS[event.reason],
        final_counters=None if event.final_counters is None else encode_counters(event.final_counters),
        create_revision=event.create_revision,
    )


def _endpoint(endpoint: Endpoint) -> common_pb2.Endpoint:
    return common_pb2.Endpoint(address=str(endpoint.address), port=endpoint.port, scope_id=endpoint.scope_id)


def _drops(drops: Mapping[str, int]) -> list[common_pb2.DropCounter]:
    return [common_pb2.DropCounter(reason=reason, packets=packets) for reason, packets in drops.items() if packets]


def _timestamp(nanoseconds: int) -> Timestamp | None:
    if not nanoseconds:
        return None
    timestamp = Timestamp()
    timestamp.FromNanoseconds(nanoseconds)
    return timestamp
