"""Synthetic scenes: pictures and clips that a program draws, with captions in four languages from small grammars."""
