"""From logits to tokens: decoding in batches, sampling, and guesses from the prompt."""
