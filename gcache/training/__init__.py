"""The room of how it learns: the estimator, its trainer, metrics and checkpoints."""
