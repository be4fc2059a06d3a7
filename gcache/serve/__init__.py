"""The room of how others use a graph: over HTTP."""
