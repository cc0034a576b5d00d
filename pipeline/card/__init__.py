"""The dataset card of a corpus: the numbers, samples and pictures, and the template that shows them."""
