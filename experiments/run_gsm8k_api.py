"""GSM8K with a local model for the caches and an API for the text.

python experiments/run_gsm8k_api.py --data train.jsonl --api_model qwen-flash --requests_per_second 5
python experiments/run_gsm8k_api.py --data train.jsonl --llm_name qwen-flash --generation_mode api_hint --hint lens
"""

import sys

from harness import Experiment

EXPERIMENT = Experiment("gsm8k", __doc__ or "", generation_mode="hybrid")

if __name__ == "__main__":
    sys.exit(EXPERIMENT.main())
