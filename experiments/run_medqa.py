"""Train, or ask, a graph of agents on MedQA.

python experiments/run_medqa.py --data medqa.json --num_iterations 10
"""

import sys

from harness import Experiment

EXPERIMENT = Experiment("medqa", __doc__ or "")

if __name__ == "__main__":
    sys.exit(EXPERIMENT.main())
