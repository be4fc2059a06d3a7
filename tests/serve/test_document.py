"""The OpenAPI document is true: a client that knows nothing else is never surprised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import openai.types.chat as official
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.config import SchemathesisConfig

#: What is checked, and what no JSON schema can say.
CONFIG = Path(__file__).parents[2] / "schemathesis.toml"


@pytest.fixture(scope="module")
def api(server: Any) -> Any:
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json", config=SchemathesisConfig.from_path(CONFIG))


@pytest.fixture(scope="module")
def document(server: Any) -> dict[str, Any]:
    found: dict[str, Any] = httpx2.get(f"{server.url}/openapi.json").json()
    return found


READ = ("/", "/ready", "/metrics", "/v1/models", "/v1/models/{name}")
ASKED = ("/v1/chat/completions", "/v1/completions", "/v1/topology")


@pytest.mark.parametrize(
    ("method", "path", "mode"),
    [  # nothing of a GET can be wrong
        *(("GET", path, GenerationMode.POSITIVE) for path in READ),
        *(("POST", path, mode) for path in ASKED for mode in GenerationMode),
    ],
)
def test_every_answer_is_one_that_the_document_tells_of(
    server: Any, api: Any, method: str, path: str, mode: GenerationMode
) -> None:
    @given(case=api[path][method].as_strategy(generation_mode=mode))
    @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
    def asked(case: Any) -> None:
        case.call_and_validate()

    asked()


def test_it_names_the_model_and_the_limits(document: dict[str, Any]) -> None:
    fields = document["components"]["schemas"]["ChatRequest"]["properties"]
    assert {"type": "string", "enum": ["toy"]} in fields["model"]["anyOf"]
    assert {"type": "integer", "minimum": 1, "maximum": 200} in fields["max_tokens"]["anyOf"]
    assert document["components"]["schemas"]["ChatRequest"]["additionalProperties"] is False
    assert "EmbedsCompletionRequest" in document["components"]["schemas"]  # this service allows them
    assert "securitySchemes" not in document["components"]


def test_it_covers_every_route(document: dict[str, Any]) -> None:
    assert set(document["paths"]) == {
        "/", "/health", "/ready", "/metrics", "/v1/models", "/v1/models/{name}", "/v1/chat/completions",
        "/v1/completions", "/v1/topology",
    }  # fmt: skip


def test_pages_that_load_from_elsewhere_are_off(server: Any) -> None:
    for path in ("/docs", "/redoc"):
        assert httpx2.get(server.url + path).status_code == 404


def test_every_field_of_the_official_client_is_known(document: dict[str, Any]) -> None:
    """Fields that it can send are taken at some value, or refused with a word on what is allowed."""
    fields = set(document["components"]["schemas"]["ChatRequest"]["properties"])
    sent = set(official.completion_create_params.CompletionCreateParamsBase.__annotations__)
    assert sent - fields <= {"prompt_cache_retention", "moderation", "prompt_cache_options"}


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "how many apples are red ?"}]}),
        ("/v1/completions", {"prompt": "how many apples are"}),
    ],
)
def test_streams_are_what_the_document_says(api: Any, path: str, asked: dict[str, Any]) -> None:
    """WriterInput for by name: whether a drawn request streams depends on what modules the process happens to hold."""
    case = api[path]["POST"].Case(body={**asked, "stream": True}, media_type="application/json")
    answer = case.call_and_validate()
    assert answer.headers["content-type"][0].startswith("text/event-stream")
