"""Train, or ask, a graph of agents on GPQA.

python experiments/run_gpqa.py --data gpqa_main.csv --num_iterations 10
python experiments/run_gpqa.py --task_option subset=diamond        (from the hub, which asks for access)
"""

import sys

from harness import Experiment

EXPERIMENT = Experiment("gpqa", __doc__ or "")

if __name__ == "__main__":
    sys.exit(EXPERIMENT.main())
