"""lm-evaluation-harness against `gcache serve`: its figures beside those of transformers and of `gcache eval`."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from real_vllm import Checks, expect

from gcache.llm.load.loading import load_model
from gcache.llm.load.locate import EMBEDDED
from gcache.tasks.gsm8k import Gsm8k

#: Rows of a multiple-choice task: a context, its continuations, and the right one's number.
ROWS: tuple[tuple[str, tuple[str, ...], int], ...] = (
    ("The capital of France is", (" Paris", " London", " a small village in the north"), 0),
    ("Two plus two is", (" five", " four", " twenty-two"), 1),
    ("Water freezes at", (" 0 degrees Celsius.", " 50 degrees Celsius.", " noon"), 0),
    ("def add(a, b):\n    return", (" a + b", " a - b", " None"), 0),
    ("The opposite of hot is", (" cold", " warm", " na\u00efve"), 0),
    ("Cows give", (" milk", " petrol", " \u4f60\u597d"), 0),
    ("Once upon a time there was a", (" little girl", " logarithm", " of the"), 0),
    ("A week has", (" seven days", " nine days", " seven hundred and thirty-one days"), 0),
)
GSM8K = """task: served_gsm8k
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer.split('####')[-1].strip()}}}}"
generation_kwargs: {{until: [], do_sample: false, temperature: 0.0, max_gen_toks: {most}}}
filter_list:
  - name: last_number
    filter:
      - {{function: regex, group_select: -1, regex_pattern: '(-?[$0-9.,]{{2,}})|(-?[0-9]+)'}}
      - {{function: take_first}}
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
    regexes_to_ignore: [",", '\\$', '\\.$']
"""
CHOICES = """task: served_choices
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{context}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: label
target_delimiter: ""
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
"""


@dataclass(frozen=True)
class Harness:
    """The harness, its tasks, and the service it asks.

    Attributes:
        program: lm_eval.
        url: up to and with /v1.
    """

    program: Path
    work: Path
    url: str
    name: str
    key: str

    @property
    def tasks(self) -> Path:
        folder = self.work / "tasks"
        folder.mkdir(exist_ok=True)
        return folder

    def questions(self, data: Path, count: int) -> Path:
        """The first questions of a file, and as many sums that a small model can do, as a file."""
        path = self.tasks / "questions.jsonl"
        lines = data.read_text(encoding="utf-8").splitlines()[:count]
        for one in range(count):
            row = {"question": f"What is {one + 2} + {one % 5 + 1}?", "answer": f"#### {one + one % 5 + 3}"}
            lines.append(json.dumps(row))
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    def run(self, task: str, model: str, model_args: str, *more: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """A task's figures, and its samples in the order of the questions."""
        out = Path(tempfile.mkdtemp(dir=self.work))
        done = subprocess.run(
            [
                str(self.program), "run", "--model", model,
                "--model_args", f"model={self.name},max_retries=1,{model_args}",
                "--tasks", task, "--include_path", str(self.tasks), "--output_path", str(out), "--log_samples", *more,
            ],
            capture_output=True, text=True, timeout=1500,
            env={**os.environ, "OPENAI_API_KEY": self.key, "HF_HUB_OFFLINE": "1", "HF_HOME": str(self.work / "hub")},
        )  # fmt: skip
        expect(done.returncode == 0, done.stderr[-600:])
        (figures,), (samples,) = out.glob("**/results_*.json"), out.glob("**/samples_*.jsonl")
        rows = [json.loads(line) for line in samples.read_text(encoding="utf-8").splitlines()]
        results: dict[str, Any] = json.loads(figures.read_text())["results"][task]
        return results, sorted(rows, key=lambda row: int(row["doc_id"]))


def loglikelihoods(checks: Checks, harness: Harness) -> None:
    """A multiple-choice task by local-completions, with prompts as token ids and as texts."""
    rows = [{"context": context, "choices": list(choices), "label": label} for context, choices, label in ROWS]
    data = harness.tasks / "choices.jsonl"
    data.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    (harness.tasks / "choices.yaml").write_text(CHOICES.format(data=data))
    loaded = load_model(EMBEDDED, dtype="float32")
    folder = harness.work / "tokenizer"
    loaded.tokenizer.save_pretrained(folder)

    def compared(tokens: bool, batch: int) -> str:
        found, samples = harness.run(
            "served_choices", "local-completions",
            f"base_url={harness.url}/completions,tokenizer={folder},tokenizer_backend=huggingface,"
            f"tokenized_requests={tokens},num_concurrent=2",
            "--batch_size", str(batch),
        )  # fmt: skip
        worst, count, right = 0.0, 0, 0
        for (context, choices, label), sample in zip(ROWS, samples, strict=True):
            wanted = [own(loaded.model, loaded.tokenizer, context, choice) for choice in choices]
            told = [(float(value), greedy in (True, "True")) for ((value, greedy),) in sample["resps"]]
            for (value, greedy), (true, best) in zip(told, wanted, strict=True):
                worst, count = max(worst, abs(value - true)), count + 1
                expect(greedy == best, f"{context!r}: greedy is {greedy}, and {best} by transformers")
            right += max(range(len(wanted)), key=lambda n: wanted[n][0]) == label
        expect(worst < 1e-3, f"a log-likelihood is off by {worst}")
        expect(abs(found["acc,none"] - right / len(ROWS)) < 1e-9, f"accuracy {found}")
        return f"{count} log-likelihoods are transformers' to {worst:.1e}; accuracy {found['acc,none']:.3f} both"

    checks.run("lm-eval, local-completions, loglikelihood, token ids one by one", lambda: compared(True, 1))
    checks.run("lm-eval, local-completions, loglikelihood, token ids four at once", lambda: compared(True, 4))
    checks.run("lm-eval, local-completions, loglikelihood, texts", lambda: compared(False, 1))


def own(model: Any, tokenizer: Any, context: str, continuation: str) -> tuple[float, bool]:
    """A continuation's log-likelihood by transformers' own forward pass, and whether it is the greedy text."""
    whole = tokenizer(context + continuation, add_special_tokens=False)["input_ids"]
    first = len(tokenizer(context, add_special_tokens=False)["input_ids"])
    with torch.no_grad():
        log_probs = torch.log_softmax(model(input_ids=torch.tensor([whole])).logits[0].float(), dim=-1)
    wanted = torch.tensor(whole[first:])
    rows = log_probs[first - 1 : len(whole) - 1]
    return float(rows.gather(1, wanted[:, None]).sum()), bool((rows.argmax(-1) == wanted).all())


@dataclass(frozen=True)
class Texts:
    """What the harness got of a chat, and made of it, by the filter of its own GSM8K that takes the last number."""

    texts: tuple[str, ...]
    figure: float
    right: tuple[bool, ...]


def texts(checks: Checks, harness: Harness, most: int) -> Texts | None:
    """GSM8K by local-chat-completions, each question being the whole message."""
    data = harness.tasks / "questions.jsonl"
    (harness.tasks / "gsm8k.yaml").write_text(GSM8K.format(data=data, most=most))
    found: list[Texts] = []

    def run() -> str:
        results, samples = harness.run(
            "served_gsm8k", "local-chat-completions", f"base_url={harness.url}/chat/completions,num_concurrent=8",
            "--apply_chat_template",
        )  # fmt: skip
        made = Texts(
            tuple(row["resps"][0][0] for row in samples), float(results["exact_match,last_number"]),
            tuple(row["exact_match"] == 1 for row in samples),
        )  # fmt: skip
        found.append(made)
        return f"{len(made.texts)} questions, exact_match {made.figure:.4f}"

    checks.run("lm-eval, local-chat-completions, GSM8K", run)
    return found[0] if found else None


def compared(checks: Checks, texts: Texts | None, report: Path, questions: Path) -> None:
    """The harness's texts and figure beside those of `gcache eval` on the same questions."""
    told = json.loads(report.read_text())
    rows = sorted(told["rows"], key=lambda row: int(row["id"].rpartition("-")[2]))

    def same_texts() -> str:
        assert texts is not None
        apart = [row["id"] for row, text in zip(rows, texts.texts, strict=True) if row["text"] != text]
        expect(not apart, f"{len(apart)} texts differ: {apart[:5]}")
        return f"all {len(rows)} texts are those of gcache eval, letter by letter"

    task = Gsm8k(questions, whole_file=True, accept_last_number=True)
    asked = sorted(task.test(), key=lambda example: int(example.id.rpartition("-")[2]))

    def same_figure() -> str:
        """By one rule, the last number of the whole text, which the harness knows of no length limit to cut."""
        assert texts is not None
        here = [task.grade(text, example).outcome == "right" for text, example in zip(texts.texts, asked, strict=True)]
        apart = [row["id"] for row, one, other in zip(rows, here, texts.right, strict=True) if one != other]
        same = abs(sum(here) / len(here) - texts.figure) < 1e-9
        expect(not apart and same, f"{sum(here)} here, {texts.figure}: {apart}")
        return f"{texts.figure:.4f} both, question by question, by the last number of each text"

    def why_another() -> str:
        """What `gcache eval` says differs where a limit cut a text off in the middle of its number, and only there."""
        assert texts is not None
        apart = [row for row, other in zip(rows, texts.right, strict=True) if (row["outcome"] == "right") != other]
        expect(all(row["cut"] and row["outcome"] != "right" for row in apart), f"{[row['id'] for row in apart]}")
        return f"{told['accuracy']:.4f}: {len(apart)} texts break off at the limit in the right number, not graded"

    checks.run("lm-eval and gcache eval, texts", same_texts)
    checks.run("lm-eval and gcache's grader, figures", same_figure)
    checks.run("gcache eval's own figure", why_another)
