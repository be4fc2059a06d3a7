"""`gcache doctor`: what is here, what is missing, and whether a graph can be run."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from gcache.commands.api_flags import add_api_flags
from gcache.commands.finding import Finding

EXAMPLES = """examples:
  gcache doctor
  gcache doctor --json
  gcache doctor --api_model NAME --base_url http://127.0.0.1:8000/v1 --ask_api

Each line begins with ok, note (a graph runs all the same) or no, and says what to do. The exit code is 0 if a graph
can be run here, else 1. No key is printed, and no server is asked without --ask_api.
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Its flags."""
    parser.epilog = EXAMPLES
    parser.set_defaults(command=_doctor)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    parser.add_argument("--ask_api", action="store_true", help="ask the API one short question (costs a request)")
    add_api_flags(parser, modes=False)


def _doctor(args: argparse.Namespace) -> int:
    found = findings(args)
    runs = found[-1].state == "ok"
    if args.json:
        print(json.dumps({"can_run": runs, "findings": [asdict(finding) for finding in found]}, indent=1))
    else:
        print("\n".join(finding.line() for finding in found))
    return 0 if runs else 1


def findings(args: argparse.Namespace) -> list[Finding]:
    """All that is looked at, in order; the last says whether a graph can be run."""
    from gcache.commands import doctor_machine as machine

    found = machine.versions()
    if any(finding.state == "no" for finding in found):
        return [*found, Finding("no", "graph", "none can be run here", found[-1].fix)]
    # not at the head: these import what may not be there
    from gcache.commands import doctor_models as models

    known = models.cached()
    embedded, others, files = models.embedded(known), models.others(known), models.files()
    api = models.api(args, args.ask_api)
    return [
        *found, *machine.devices(), machine.threads(), machine.compiled_passes(), machine.memory(), embedded, others,
        files, models.encoder(known), api, *machine.optional(), machine.sandbox(), machine.browser(),
        _verdict(embedded, others, files, api),
    ]  # fmt: skip


def _verdict(embedded: Finding, others: Finding, files: Finding, api: Finding) -> Finding:
    """Whether a graph can be run: on the embedded model, on another one, or on an API."""
    if embedded.state == "ok" and files.state == "ok":
        return Finding("ok", "graph", 'gcache run "What is 2 + 3?" works here')
    if others.state == "ok":
        return Finding("ok", "graph", "gcache run works here with --llm_name and a model named above")
    if api.state == "ok":
        return Finding("ok", "graph", "gcache run --generation_mode api works here, if the API does")
    return Finding("no", "graph", "none can be run here", embedded.fix or files.fix)
