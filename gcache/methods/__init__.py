"""The room of what is compared with the graph."""
