from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from gcache.cache.fused_cache import FusedCache
from gcache.errors import ModelError
from gcache.inspect.attention_shares import attention_shares
from gcache.llm.forward.attention import watching
from gcache.llm.forward.gradient_pass import GradientPass
from gcache.llm.requests import LogProbRequest, ThinkRequest

if TYPE_CHECKING:
    from gcache.llm.local import LocalLLM


def past_of(llm: LocalLLM) -> FusedCache:
    return FusedCache.plain(llm.think([ThinkRequest((5, 9, 17, 30), latent_steps=2)])[0])


def test_shares_are_those_of_transformers_own_attention(tiny_llm: LocalLLM) -> None:
    """On no past, against the weights that transformers' eager attention returns."""
    request = LogProbRequest((5, 9, 17), (30, 8))
    model = type(tiny_llm.model)(tiny_llm.model.config)
    model.load_state_dict(tiny_llm.model.state_dict())
    model.eval().set_attn_implementation("eager")
    output = model(torch.tensor([[5, 9, 17, 30]]), output_attentions=True)
    expected = torch.stack([layer[0, :, 2:].mean(dim=(0, 1)) for layer in output.attentions])
    tiny_llm.model.set_attn_implementation("gcache_grouped")  # the configuration is shared
    torch.testing.assert_close(attention_shares(tiny_llm, request), expected, atol=1e-5, rtol=0)


def test_rows_sum_to_one_and_cover_past_prompt_and_text(tiny_llm: LocalLLM) -> None:
    shares = attention_shares(tiny_llm, LogProbRequest((40, 41), (3, 60, 20), past_of(tiny_llm)))
    assert shares.shape == (2, 6 + 2 + 2)  # the last token of a text is fed to nobody
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(2))


def test_a_weight_scales_the_odds_of_its_slots_in_the_first_layer(tiny_llm: LocalLLM) -> None:
    """The odds share / (1 - share) are multiplied by w, in each head."""
    past = past_of(tiny_llm)
    embeds, lengths = tiny_llm.embed([(40,)])

    def share(weight: float) -> torch.Tensor:
        seen: list[torch.Tensor] = []
        with torch.no_grad(), watching(lambda layer, weights: seen.append(weights)):
            GradientPass(tiny_llm.model.model, past.weighted(torch.tensor(weight).log())).feed(embeds, lengths)
        return seen[0][0, :, 0, :6].sum(dim=-1)

    whole = share(1.0)
    torch.testing.assert_close(share(0.25), 0.25 * whole / (0.25 * whole + 1 - whole), rtol=1e-4, atol=1e-5)


def test_a_slot_that_is_masked_gets_nothing(tiny_llm: LocalLLM) -> None:
    past = past_of(tiny_llm).weighted(torch.tensor(-1e4))
    shares = attention_shares(tiny_llm, LogProbRequest((40, 41), (3,), past))
    assert float(shares[:, :6].max()) == 0.0


def test_passes_outside_are_not_watched(tiny_llm: LocalLLM) -> None:
    request = LogProbRequest((40, 41), (3, 60), past_of(tiny_llm))
    before = tiny_llm.log_prob([request])[0]
    attention_shares(tiny_llm, request)
    assert torch.equal(tiny_llm.log_prob([request])[0], before)


def test_other_attention_is_refused_by_name(tiny_llm: LocalLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny_llm.model.config, "_attn_implementation_internal", "eager")
    with pytest.raises(ModelError, match="cannot be looked into"):
        attention_shares(tiny_llm, LogProbRequest((40,), (3,)))
