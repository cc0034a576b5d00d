"""Synthetic scenes: pictures and clips drawn by a program, with captions in six languages that small grammars write."""
