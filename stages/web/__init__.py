"""The search server: the page for people and the API for programs."""
