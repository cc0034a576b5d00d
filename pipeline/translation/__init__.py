"""Translators: the embedded one, CTranslate2, Transformers; sentences and language tags. Imports no torch by itself."""
