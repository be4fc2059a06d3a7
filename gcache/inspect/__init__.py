"""The room of how people look at what was learned."""
