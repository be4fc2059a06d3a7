"""Speed and memory, always beside a reference that is measured in the same run, as ratios.

    python -m benchmarks --help
"""
