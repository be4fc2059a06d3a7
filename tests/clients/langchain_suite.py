"""LangChain's own tests of a chat model (the package langchain-tests), for ChatOpenAI on `gcache serve`.

Run by pytest in LangChain's environment; the address and the name come from the environment. What the service refuses
by name (tools, JSON output, pictures) is said here, so that those tests skip themselves.
"""

from __future__ import annotations

import os
from typing import Any

from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests


class TestServed(ChatModelIntegrationTests):
    @property
    def chat_model_class(self) -> Any:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {
            "base_url": os.environ["SERVED_URL"], "model": os.environ["SERVED_NAME"], "api_key": "key-of-the-test",
            "stream_usage": True, "max_retries": 0, "timeout": 300, "max_tokens": 24, "temperature": 0,
        }  # fmt: skip

    @property
    def has_tool_calling(self) -> bool:
        return False

    @property
    def has_structured_output(self) -> bool:
        return False

    @property
    def supports_json_mode(self) -> bool:
        return False
