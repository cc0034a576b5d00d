"""Training runs: settings, loop, checkpoints, logs."""
