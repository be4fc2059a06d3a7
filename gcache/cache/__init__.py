"""The room of what flows: the cache, its moves along the sequence, and the fusers."""
