"""One file a recipe: `recipe()` says what it changes of the defaults in `stages.training.settings`.

A recipe that can make its own corpus has `make_corpus(folder)` too.
"""
