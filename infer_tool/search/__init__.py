"""`--scheme auto`: measures what `quant.search` proposes, remembers it, and says what it found."""
