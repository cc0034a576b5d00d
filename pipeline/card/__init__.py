"""The dataset card of a corpus: the numbers, samples and contact sheet, and the template that shows them."""
