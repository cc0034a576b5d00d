"""Training data: samples, media, batches, and stored states of descriptions."""
