"""Train, or ask, a graph of agents on HumanEval; programs run in a sandboxed process.

python experiments/run_humaneval.py --data HumanEval.jsonl.gz --num_iterations 2
"""

import sys

from harness import Experiment

EXPERIMENT = Experiment("humaneval", __doc__ or "")

if __name__ == "__main__":
    sys.exit(EXPERIMENT.main())
