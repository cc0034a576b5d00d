"""LECCR: encoders, semantic slots, interaction, matching, losses. Knows tensors, no file formats of a corpus."""
