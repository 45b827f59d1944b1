"""System calls and processes: the seccomp listener, the program's memory and descriptors, launcher, guardian."""
