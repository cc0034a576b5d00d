"""Short scripts that use the project from Python."""
