"""Offline data pipeline: media and English captions in, Arrow corpora out. Imports no torch at import time."""
