"""Loading a codec from audiocraft's or transformers' files, and rejecting invalid ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

torch = pytest.importorskip("torch", reason="the native engine needs torch")

from dgx_music.errors import FailedPrecondition  # noqa: E402
from generation_service.models.musicgen.checkpoints.xp_config import parse_xp_config  # noqa: E402
from generation_service.models.musicgen.codec.encodec import Encodec  # noqa: E402
from generation_service.models.musicgen.codec.encodec_checkpoint import load_encodec  # noqa: E402
from generation_service.models.musicgen.codec.encodec_config import EncodecConfig, parse_audiocraft_config  # noqa: E402
from tests.support.compression_checkpoints import (  # noqa: E402
    FULL_CODEC,
    TINY_CODEC,
    audiocraft_config,
    audiocraft_state,
    write_compression_checkpoint,
    write_pretrained_reference,
    write_transformers_codec,
)

CODES = torch.arange(4 * 6).view(4, 6)


def test_load_accepts_a_file_or_its_folder(tmp_path: Path) -> None:
    path = write_compression_checkpoint(tmp_path)
    codec = load_encodec(path)
    assert codec.config.hop_frames == 640
    assert codec.config.frame_rate_hz == 50.0
    assert codec.config.sample_rate_hz == 32_000
    assert not any(weight.requires_grad for weight in codec.parameters())
    np.testing.assert_array_equal(codec.decode(CODES, 1), load_encodec(tmp_path).decode(CODES, 1))


def test_default_config_is_encodec_32khz() -> None:
    config = parse_xp_config(yaml.safe_dump(audiocraft_config(FULL_CODEC)), Path("x"))
    assert EncodecConfig() == parse_audiocraft_config(config, Path("x"))
    with torch.device("meta"):
        codec = Encodec(EncodecConfig())
    assert sum(weight.numel() for weight in codec.parameters()) == 57_925_313


@pytest.mark.parametrize("safetensors", [True, False])
def test_both_formats_load_the_same_codec(tmp_path: Path, safetensors: bool) -> None:
    if safetensors:
        pytest.importorskip("safetensors")
    ours = load_encodec(write_compression_checkpoint(tmp_path / "a"))
    theirs = load_encodec(write_transformers_codec(tmp_path / "b", safetensors=safetensors))
    assert ours.config == theirs.config
    np.testing.assert_array_equal(ours.decode(CODES, 1), theirs.decode(CODES, 1))


def test_pretrained_codec_is_loaded_from_the_cache(tmp_path: Path) -> None:
    path = write_pretrained_reference(tmp_path / "model")
    repository = tmp_path / "hub" / "models--facebook--encodec_32khz"
    write_transformers_codec(repository / "snapshots" / "0123abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123abc")
    codec = load_encodec(path, cache=tmp_path / "hub")
    expected = load_encodec(write_compression_checkpoint(tmp_path / "same"))
    np.testing.assert_array_equal(codec.decode(CODES, 1), expected.decode(CODES, 1))


def test_missing_pretrained_codec_error_names_the_download_command(tmp_path: Path) -> None:
    path = write_pretrained_reference(tmp_path)
    with pytest.raises(FailedPrecondition, match="hf download facebook/encodec_32khz") as caught:
        load_encodec(path, cache=tmp_path / "hub")
    assert caught.value.reason == "CHECKPOINT_MISSING"


@pytest.mark.parametrize("name", ["a/b/c", "../../etc", ""])
def test_invalid_pretrained_name_is_rejected(tmp_path: Path, name: str) -> None:
    with pytest.raises(FailedPrecondition, match="expected the name of an EnCodec model"):
        load_encodec(write_pretrained_reference(tmp_path, name), cache=tmp_path / "hub")


Package = dict[str, Any]


def change_config(change: Callable[[Any], object]) -> Callable[[Package], object]:
    def apply(package: Package) -> None:
        config = yaml.safe_load(package["xp.cfg"])
        change(config)
        package["xp.cfg"] = yaml.safe_dump(config)

    return apply


INVALID_PACKAGES: dict[str, tuple[Callable[[Package], object], str]] = {
    "a missing weight": (
        lambda package: package["best_state"].pop("decoder.model.0.conv.conv.bias"),
        r"missing: decoder\.0\.bias",
    ),
    "an unexpected weight": (
        lambda package: package["best_state"].update({"extra.weight": torch.zeros(1)}),
        r"unexpected: extra\.weight",
    ),
    "a weight of another shape": (
        lambda package: package["best_state"].update({"decoder.model.0.conv.conv.bias": torch.zeros(3)}),
        r"decoder\.0\.bias has the shape \[3\], expected \[64\]",
    ),
    "an upsampling kernel of another shape": (
        lambda package: package["best_state"].update(
            {
                "decoder.model.3.convtr.convtr.weight_v": torch.ones(64, 32, 10),
            }
        ),
        r"decoder\.3\.weight has the shape \[64, 32, 10\], expected \[64, 32, 16\]",
    ),
    "an incomplete weight norm": (
        lambda package: package["best_state"].pop("decoder.model.3.convtr.convtr.weight_g"),
        "no matching weight_g",
    ),
    "a value that is not a tensor": (
        lambda package: package["best_state"].update({"decoder.model.0.conv.conv.bias": "x"}),
        "is a str; expected only tensors by their names",
    ),
    "no state": (lambda package: package.pop("best_state"), "expected best_state and xp.cfg"),
    "no configuration": (lambda package: package.pop("xp.cfg"), "expected best_state and xp.cfg"),
    "a broken configuration": (lambda package: package.update({"xp.cfg": "a: [1"}), "xp.cfg is not valid YAML"),
    "a configuration without keys": (
        lambda package: package.update({"xp.cfg": "7"}),
        "xp.cfg is not a mapping",
    ),
    "a language model": (change_config(lambda cfg: cfg.pop("compression_model")), "has no compression_model"),
    "another network": (
        change_config(lambda cfg: cfg["encodec"].update(autoencoder="dac")),
        "encodec.autoencoder is 'dac'; only 'seanet'",
    ),
    "a causal network": (change_config(lambda cfg: cfg["encodec"].update(causal=True)), "encodec.causal is True"),
    "a stereo network": (change_config(lambda cfg: cfg.update(channels=2)), "encodec.channels is 2; only 1"),
    "a normalizing network": (
        change_config(lambda cfg: cfg["encodec"].update(renormalize=True)),
        "encodec.renormalize is True",
    ),
    "another norm": (
        change_config(lambda cfg: cfg["seanet"].update(norm="time_group_norm")),
        "norm is 'time_group_norm'; expected weight_norm or none",
    ),
    "another activation": (change_config(lambda cfg: cfg["seanet"].update(activation="ReLU")), "activation is 'ReLU'"),
    "a final activation": (
        change_config(lambda cfg: cfg["seanet"]["decoder"].update(final_activation="Tanh")),
        "final_activation is 'Tanh'",
    ),
    "an asymmetric network": (
        change_config(lambda cfg: cfg["seanet"]["encoder"].update(n_filters=8)),
        "encoder and decoder differ in n_filters",
    ),
    "no LSTM": (
        change_config(lambda cfg: cfg["seanet"].update(lstm=0)),
        "seanet.lstm is 0; expected an integer",
    ),
    "invalid ratios": (
        change_config(lambda cfg: cfg["seanet"].update(ratios=[8, 0])),
        "expected a list of integers of at least 2",
    ),
    "unknown padding": (
        change_config(lambda cfg: cfg["seanet"].update(pad_mode="replicate")),
        "pad_mode is 'replicate'; expected reflect or constant",
    ),
    "a cycle in the configuration": (
        change_config(lambda cfg: cfg.update(sample_rate="${encodec.sample_rate}")),
        "refers to itself",
    ),
    "network settings in a list": (
        change_config(lambda cfg: cfg.update(seanet=[1])),
        "seanet in xp.cfg is not a mapping",
    ),
}


@pytest.mark.parametrize("case", INVALID_PACKAGES)
def test_invalid_audiocraft_checkpoint_is_rejected(tmp_path: Path, case: str) -> None:
    change, problem = INVALID_PACKAGES[case]
    path = write_compression_checkpoint(tmp_path)
    package = torch.load(path, weights_only=True)
    change(package)
    torch.save(package, path)
    with pytest.raises(FailedPrecondition, match=problem) as caught:
        load_encodec(path)
    assert caught.value.reason == "CHECKPOINT_INVALID"
    assert caught.value.message.startswith(str(path))


@pytest.mark.parametrize("size", [0, 10, 1000, 0.5, 0.99])
def test_truncated_file_is_rejected(tmp_path: Path, size: float) -> None:
    path = write_compression_checkpoint(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: int(size if size > 1 else size * len(data))])
    with pytest.raises(FailedPrecondition, match=r"the file is truncated or was not written by torch\.save"):
        load_encodec(path)


class Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return shutil.rmtree, ("/nonexistent",)


@pytest.mark.parametrize("content", [b"not a checkpoint", b"RIFF\x00\x00\x00\x00WAVE", None])
def test_file_of_another_format_is_rejected(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "compression_state_dict.bin"
    if content is None:
        torch.save({"best_state": Malicious(), "xp.cfg": ""}, path)
    else:
        path.write_bytes(content)
    problem = (
        "was not written by torch.save" if content else r"reading it would run shutil\.rmtree; only files of tensors"
    )
    with pytest.raises(FailedPrecondition, match=problem) as caught:
        load_encodec(path)
    assert caught.value.reason == ("CHECKPOINT_INVALID" if content else "CHECKPOINT_UNSAFE")


@pytest.mark.parametrize(
    "content", [[1, 2], torch.zeros(3), {"model": {}}, {}], ids=["list", "tensor", "dict", "empty"]
)
def test_other_pytorch_file_is_rejected(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "compression_state_dict.bin")
    with pytest.raises(FailedPrecondition, match=r"expected best_state and xp\.cfg"):
        load_encodec(tmp_path)


def test_missing_file_error_names_the_expected_file(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent", tmp_path / "absent.bin"):
        with pytest.raises(FailedPrecondition, match=r"expected audiocraft's compression_state_dict\.bin") as caught:
            load_encodec(path)
        assert caught.value.reason == "CHECKPOINT_MISSING"


INVALID_TRANSFORMERS_CONFIGS: dict[str, tuple[dict[str, object], str]] = {
    "another model": ({"model_type": "dac"}, "model_type is 'dac'; only 'encodec'"),
    "the causal 24 kHz model": ({"use_causal_conv": True}, "use_causal_conv is True"),
    "the stereo 48 kHz model": ({"audio_channels": 2}, "audio_channels is 2"),
    "segments": ({"chunk_length_s": 1.0}, "chunk_length_s is 1.0"),
    "no bandwidths": ({"target_bandwidths": []}, "target_bandwidths is not a list"),
    "bandwidths in words": ({"target_bandwidths": ["all"]}, "target_bandwidths is not a list"),
    "too little bandwidth": ({"target_bandwidths": [0.01]}, "too little for one codebook"),
    "fewer filters": ({"num_filters": 8}, "the weights do not fit the configuration"),
}


@pytest.mark.parametrize("case", INVALID_TRANSFORMERS_CONFIGS)
def test_unsupported_transformers_config_is_rejected(tmp_path: Path, case: str) -> None:
    change, problem = INVALID_TRANSFORMERS_CONFIGS[case]
    folder = write_transformers_codec(tmp_path, safetensors=False)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(FailedPrecondition, match=problem):
        load_encodec(folder)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("config.json", b"{", "is not valid JSON"),
        ("config.json", b"[]", "contains a list"),
        ("model.safetensors", b"\x08\x00\x00\x00\x00\x00\x00\x00{}", "can't be read as safetensors"),
        ("model.safetensors", None, "neither model.safetensors nor pytorch_model.bin"),
    ],
)
def test_broken_transformers_file_is_rejected(tmp_path: Path, name: str, content: bytes | None, problem: str) -> None:
    pytest.importorskip("safetensors")
    folder = write_transformers_codec(tmp_path)
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    with pytest.raises(FailedPrecondition, match=problem):
        load_encodec(folder)


def test_random_weights_are_reproducible() -> None:
    first, again, other = (
        audiocraft_state(TINY_CODEC),
        audiocraft_state(TINY_CODEC),
        audiocraft_state(TINY_CODEC, seed=1),
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["decoder.model.0.conv.conv.bias"], other["decoder.model.0.conv.conv.bias"])
