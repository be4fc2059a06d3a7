"""Who writes the final text: the local model, an API, or both."""
