"""The embedded describer, which needs no server and no model hub."""
