"""Every program a user runs, one module each, and what the programs share."""
