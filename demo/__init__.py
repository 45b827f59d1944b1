"""`make demo`: what the service does for a stock OpenVPN, shown on this machine."""
