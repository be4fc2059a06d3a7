"""The one model that is served, by its name."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import httpx2
import openai
import pytest

NAMES = ["toy", "org/model", "a/b/c", "/models/x.gguf", "a b", "ünï", "50%", "a%2Fb", "v1.0:latest", "q?x#y", "a//b"]


@pytest.mark.parametrize("name", NAMES)
def test_it_is_found_by_any_name_that_it_may_have(start: Any, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    served = start()
    monkeypatch.setattr(served.service, "name", name)
    (listed,) = httpx2.get(f"{served.url}/v1/models").json()["data"]
    for safe in ("", "/"):
        found = httpx2.get(f"{served.url}/v1/models/{quote(name, safe=safe)}")
        assert found.status_code == 200 and found.json() == listed, found.text
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="any", max_retries=0) as client:
        assert client.models.retrieve(name).id == name


def test_another_is_not(server: Any) -> None:
    for name in ("gpt-5", "toy/", "TOY", "some/other", "%00", ""):
        answer = httpx2.get(f"{server.url}/v1/models/{name}")
        assert answer.status_code == 404 and answer.json()["error"]["code"] == "model_not_found", answer.text
    assert httpx2.delete(f"{server.url}/v1/models/toy").status_code == 405


def test_the_key_is_asked_for_and_it_is_counted_under_one_name(start: Any) -> None:
    served = start(key="secret")
    assert httpx2.get(f"{served.url}/v1/models/toy").status_code == 401
    headers = {"Authorization": "Bearer secret"}
    for name in ("toy", "one", "two"):
        httpx2.get(f"{served.url}/v1/models/{name}", headers=headers)
    counted = httpx2.get(f"{served.url}/metrics", headers=headers).text
    assert 'route="/v1/models/NAME",status="404"} 2.0' in counted and "/v1/models/one" not in counted
