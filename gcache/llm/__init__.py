"""The room of what agents think with: models by name, and the three calls on a batch of requests."""
