"""Search: indexes of items, the engine that answers from them, and the corpora behind it."""
