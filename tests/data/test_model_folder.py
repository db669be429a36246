"""Model folders: what is accepted, and the sentence for everything that is not; without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from stages._errors import UserError
from stages.data.model_folder import check_model, check_safetensors


def safetensors_bytes(num_values: int = 4) -> bytes:
    """A whole file with one float32 tensor."""
    size = 4 * num_values
    header = json.dumps({"w": {"dtype": "F32", "shape": [num_values], "data_offsets": [0, size]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(size)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "qwen2"}')
    (folder / "model.safetensors").write_bytes(safetensors_bytes())
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    return folder


def refused(folder: Path) -> str:
    """The sentence with which `folder` is refused: one line, with a full stop at the end only."""
    with pytest.raises(UserError) as caught:
        check_model(folder)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith((".", ")."))
    return sentence


def test_a_whole_folder_passes(model: Path) -> None:
    check_model(model)


def test_the_template_may_stand_in_the_tokenizer_settings(model: Path) -> None:
    (model / "chat_template.jinja").unlink()
    (model / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    check_model(model)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    assert f"{tmp_path / 'none'} does not exist" in refused(tmp_path / "none")


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_a_missing_json_file_is_named(model: Path, name: str) -> None:
    (model / name).unlink()
    assert f"has no {name}" in refused(model)


@pytest.mark.parametrize(("content", "part"), [("{", "not valid JSON"), ("[]", "JSON object"), ("{}", "model_type")])
def test_a_broken_config_is_refused(model: Path, content: str, part: str) -> None:
    (model / "config.json").write_text(content)
    assert part in refused(model)


def test_a_folder_without_weights_is_refused(model: Path) -> None:
    (model / "model.safetensors").unlink()
    assert "no *.safetensors file" in refused(model)


def test_pickled_weights_name_the_conversion(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    assert "save_pretrained(folder, safe_serialization=True)" in refused(model)


def test_a_file_cut_short_in_its_data_states_the_sizes(model: Path) -> None:
    whole = safetensors_bytes()
    (model / "model.safetensors").write_bytes(whole[:-3])
    assert f"is truncated ({len(whole) - 3} of {len(whole)} bytes)" in refused(model)


def test_a_file_cut_short_in_its_header_is_called_truncated(model: Path) -> None:
    (model / "model.safetensors").write_bytes(safetensors_bytes()[:20])
    assert "truncated within its header" in refused(model)


def test_surplus_bytes_are_refused(model: Path) -> None:
    (model / "model.safetensors").write_bytes(safetensors_bytes() + b"x")
    assert "too long" in refused(model)


@pytest.mark.parametrize("content", [b"", b"abc", b"PK\x03\x04" + bytes(100), (2).to_bytes(8, "little") + b"[]"])
def test_other_files_are_not_taken_for_safetensors(model: Path, content: bytes) -> None:
    (model / "model.safetensors").write_bytes(content)
    assert "is not a safetensors file" in refused(model)


def test_a_git_lfs_pointer_names_the_command(model: Path) -> None:
    (model / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    assert "git lfs pull" in refused(model)


def test_every_shard_of_the_index_must_be_there_and_whole(model: Path) -> None:
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    (model / "model.safetensors").rename(model / names[0])
    index = {"weight_map": {"a": names[0], "b": names[1]}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    assert f"lacks {names[1]}" in refused(model)
    (model / names[1]).write_bytes(safetensors_bytes()[:-1])
    assert f"{names[1]} is truncated" in refused(model)
    (model / names[1]).write_bytes(safetensors_bytes())
    check_model(model)


def test_missing_tokenizer_and_template_are_two_different_faults(model: Path) -> None:
    (model / "chat_template.jinja").unlink()
    assert "no chat template" in refused(model)
    (model / "tokenizer.json").unlink()
    assert "holds no tokenizer" in refused(model)


def test_files_written_by_the_safetensors_library_pass(tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    save_file = pytest.importorskip("safetensors.numpy").save_file
    tensors = {"a": numpy.ones((3, 2)), "b": numpy.zeros(0)}
    save_file(tensors, tmp_path / "m.safetensors", metadata={"format": "pt"})
    check_safetensors(tmp_path / "m.safetensors")


def test_no_heavy_library_is_imported() -> None:
    code = (
        "import sys, stages.data.model_folder as m; print({'torch', 'safetensors', 'transformers'} & set(sys.modules))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"
