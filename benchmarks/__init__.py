"""Speed and memory, always beside a reference measured in the same run: `python -m benchmarks --help`."""
