"""The compiled twin of datachannel/, of tun/'s offload and of the worker's packet path; same results, byte for byte."""
