"""Grades programs that attack their grader, and prints what each came to. Run as a script, by `test_sandbox_attacks`.

It reads {"row": a row of MBPP+, "attacks": {name: body of a function}, "without": layers to do without} from
stdin and writes {"outcomes": {name: [outcome, answer]}, "refused": layers that the system did not grant}.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import tempfile
from pathlib import Path

from gcache.tasks import sandbox
from gcache.tasks.code import MbppPlus

given = json.load(sys.stdin)
refused = getattr(sandbox, "_refused", set())
refused.update(given["without"])
secret = ctypes.create_string_buffer(b"in the grader's memory")
with tempfile.TemporaryDirectory() as folder:
    data = Path(folder, "data.jsonl")
    data.write_text(json.dumps(given["row"]) + "\n", encoding="utf-8")
    task = MbppPlus(data, whole_file=True)
(example,) = task.test()
outcomes = {}
for name, body in given["attacks"].items():
    body = body.replace("GRADER", str(os.getpid())).replace("ADDRESS", str(ctypes.addressof(secret)))
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    grade = task.grade(f"```python\ndef attack():\n{lines}    return 'done'\n```", example)
    outcomes[name] = [grade.outcome, grade.answer]
print(json.dumps({"outcomes": outcomes, "refused": sorted(refused)}))
