"""Several caches that arrive become one: the protocol, and a file for each way."""
