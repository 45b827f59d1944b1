"""The generic netlink family ovpn-dco-v2, which OpenVPN 2.6 speaks (uapi header ovpn_dco.h of module ovpn-dco)."""
