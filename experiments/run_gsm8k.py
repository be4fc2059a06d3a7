"""Train, or ask, a graph of agents on GSM8K.

    python experiments/run_gsm8k.py --data train.jsonl --limit 16 --num_iterations 2
    python experiments/run_gsm8k.py --data train.jsonl --question_id 3
    python experiments/run_gsm8k.py --data train.jsonl --llm_name hybrid_cache --api_model qwen-flash
"""

import sys

from harness import Experiment

EXPERIMENT = Experiment("gsm8k", __doc__ or "")

if __name__ == "__main__":
    sys.exit(EXPERIMENT.main())
