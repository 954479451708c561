"""Which transactions run while the server is crashed? See `run.Workload`; one kind of transaction a file."""
