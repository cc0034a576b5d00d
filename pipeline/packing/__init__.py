"""Parts of `--stage pack`: pair filters, the leak check, merging of corpora, training rows, manifest figures."""
