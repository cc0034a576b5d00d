"""Describing media in English from several views: prompts, clients, servers, the embedded describer."""
