"""GPQA with a local model for the caches and an API for the text.

python experiments/run_gpqa_api.py --data gpqa_main.csv --api_model qwen-flash --requests_per_second 5
"""

import sys

from harness import Experiment

EXPERIMENT = Experiment("gpqa", __doc__ or "", generation_mode="hybrid")

if __name__ == "__main__":
    sys.exit(EXPERIMENT.main())
