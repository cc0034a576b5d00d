"""Training, scoring and search: programs, and what they need."""
