"""What a model directory may hold: weights in safetensors, no adapter, and code that is never run."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel

import tiny
from vold.errors import CheckpointError, ConfigError
from vold.model.policy import Policy
from vold.run.precision import checkpoint_dtype


@pytest.fixture
def model(tmp_path: Path) -> Path:
    tiny.teacher().save(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize(
    ("weights", "said", "found"),
    [
        (torch.bfloat16, True, "bfloat16"), (torch.float16, True, "bfloat16"), (torch.float32, True, "float32"),
        (torch.bfloat16, False, "bfloat16"), (torch.float16, False, "bfloat16"), (torch.float32, False, "float32"),
    ],
)  # fmt: skip
def test_the_precision_of_a_checkpoint_is_that_of_its_config_or_its_weights(
    tmp_path: Path, weights: torch.dtype, said: bool, found: str
) -> None:
    policy = tiny.teacher()
    policy.model.to(weights)
    policy.save(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    if not said:
        del config["dtype"]
        (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    assert checkpoint_dtype(str(tmp_path / "model")) == found


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth", "model.ckpt"])
def test_weights_that_are_pickles_are_not_read(model: Path, name: str) -> None:
    torch.save(load_file(model / "model.safetensors"), model / name)
    whole = Policy.load(str(model))  # beside safetensors they are left alone
    assert whole.rows
    (model / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="are pickles") as error:
        Policy.load(str(model))
    assert error.value.got == name
    assert "save_pretrained" in error.value.fix


def test_an_adapter_in_a_model_directory_is_refused(model: Path) -> None:
    student = tiny.student()
    student.add_lora(rank=2, alpha=4, seed=0)
    student.save(model.parent / "lora")
    assert Policy.load(str(model.parent / "lora"))  # ours lies one folder below, where nothing applies it
    for file in (model.parent / "lora" / "adapter").iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    with pytest.raises(CheckpointError, match="adapter") as error:
        Policy.load(str(model))
    assert "merge" in error.value.fix
    with pytest.raises(CheckpointError, match="adapter"):
        Policy.load(str(model.parent / "lora" / "adapter"))


@pytest.mark.parametrize("path", ["{home}/modle", "./modle", "models/stduent"])
def test_a_directory_like_the_one_that_is_not_there_is_named(
    path: str, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last has the form of a hub's name as well."""
    (model.parent / "models" / "student").mkdir(parents=True)
    monkeypatch.chdir(model.parent)
    path = path.format(home=model.parent)
    meant = str(Path(path).parent / {"modle": "model", "stduent": "student"}[Path(path).name])
    with pytest.raises(CheckpointError) as error:
        Policy.load(path)
    assert error.value.fix.startswith(f"did you mean {meant!r}? check the path in the recipe")


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("known", [True, False])
def test_code_that_comes_with_a_model_is_never_run_nor_asked_about(model: Path, file: str, known: bool) -> None:
    ran = model / "ran"
    (model / "evil.py").write_text(f"open({str(ran)!r}, 'w')\n")
    config = json.loads((model / file).read_text())
    config["auto_map"] = dict.fromkeys(("AutoConfig", "AutoModelForCausalLM"), "evil.Evil")
    config["auto_map"]["AutoTokenizer"] = ["evil.Evil", "evil.Evil"]
    if not known:
        key = "model_type" if file == "config.json" else "tokenizer_class"
        config[key] = "evil"
    (model / file).write_text(json.dumps(config))
    try:
        Policy.load(str(model))
    except CheckpointError as error:
        assert not known
        assert error.fix
    assert not ran.exists()


@pytest.mark.parametrize("found", [{"quant_method": "gptq", "bits": 4}, {"quant_method": "bitsandbytes"}])
def test_a_checkpoint_that_is_quantised_already_is_refused(found: dict[str, Any], tmp_path: Path) -> None:
    tiny.teacher().save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "quantization_config": found}))
    with pytest.raises(CheckpointError, match="quantised already"):
        Policy.load(str(tmp_path))


def test_without_the_library_a_quantised_model_is_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.teacher().save(tmp_path)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # as where it is not installed
    assert Policy.load(str(tmp_path))
    with pytest.raises(ConfigError, match="bitsandbytes, which is not installed"):
        Policy.load(str(tmp_path), quantize="nf4")


def test_threads_that_load_at_once_leave_transformers_as_it_was(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ties = PreTrainedModel.tie_weights
    monkeypatch.setattr(PreTrainedModel, "tie_weights", ties)  # put back where this fails
    with ThreadPoolExecutor(4) as threads:
        policies = list(threads.map(lambda _: Policy.load(str(model)), range(24)))
    assert PreTrainedModel.tie_weights is ties
    assert all(p.model.get_output_embeddings().weight is p.model.get_input_embeddings().weight for p in policies)
