"""How good a translated pair is: language, form, numbers and meaning, each a score; rules say which scores are bad."""
