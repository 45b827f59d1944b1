"""How the daemon tells what it does: the log."""
