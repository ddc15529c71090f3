"""What runs: the command, the relay file, and one wiring file a job."""
