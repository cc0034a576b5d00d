"""Captions: an item is described in English from several views, by a multimodal LLM or the embedded describer."""
