from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from toy import toy_built

from gcache.graph.run_config import GraphConfig
from gcache.llm.local import LocalLLM

if TYPE_CHECKING:
    from gcache.build import Built


@pytest.fixture
def built(tiny_llama: Any, tiny_tokenizer: Any) -> Built:
    """A toy graph whose agents take no latent steps."""
    return toy_built(LocalLLM(tiny_llama, tiny_tokenizer), tiny_tokenizer, graph=GraphConfig(latent_steps=0))
