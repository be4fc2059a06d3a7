"""What is to be known on the day a GPU is at hand, in one go: `python -m benchmarks.gpu_check --help`."""
