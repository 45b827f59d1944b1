"""The worker process: the packet path of one device and nothing else."""
