"""What `--stage pack` is made of: filters of pairs, the check for leaks, contents shared by corpora, texts, pixels."""
