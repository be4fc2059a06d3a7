"""How agents on different models hand something to each other."""
