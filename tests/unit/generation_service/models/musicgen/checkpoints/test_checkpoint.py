"""Files in audiocraft's format are read; whatever is not that is refused with what was expected."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")

import yaml  # noqa: E402
from torch import Tensor  # noqa: E402

from dgx_music.errors import FailedPrecondition  # noqa: E402
from generation_service.models.musicgen.checkpoints.audiocraft_file import LM_FILE, parse_config, read_checkpoint  # noqa: E402
from generation_service.models.musicgen.checkpoints.config import lm_config  # noqa: E402
from generation_service.models.musicgen.conditioners.t5_conditioner import TextConditioner  # noqa: E402
from generation_service.models.musicgen.lm.language_model import LanguageModel  # noqa: E402
from generation_service.models.musicgen.lm.linear import Precision  # noqa: E402
from generation_service.models.musicgen.loader import find_musicgen, load_musicgen  # noqa: E402
from tests.support.checkpoints import TINY, lm_config_dump, lm_weights, write_checkpoint, write_lm  # noqa: E402

MAPS = Path("/proc/self/maps")


def saved(folder: Path, package: Any) -> Path:
    torch.save(package, folder / LM_FILE)
    return folder / LM_FILE


def changed(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A checkpoint whose configuration was changed."""
    config = lm_config_dump(TINY, stereo=False)
    change(config)
    return saved(folder, {"best_state": lm_weights(TINY, 4, 0), "xp.cfg": yaml.safe_dump(config)})


@pytest.mark.parametrize("stereo", [False, True])
def test_the_shape_comes_from_the_configuration(tmp_path: Path, stereo: bool) -> None:
    config = lm_config(read_checkpoint(write_lm(tmp_path, TINY, stereo=stereo)))
    assert (config.dim, config.num_heads, config.num_layers, config.hidden_dim, config.card) == (64, 4, 3, 256, 64)
    assert config.delays == ((0, 0, 1, 1, 2, 2, 3, 3) if stereo else (0, 1, 2, 3))
    assert (config.channels, config.n_q) == ((2, 8) if stereo else (1, 4))
    assert (config.t5_name, config.sample_rate_hz, config.max_duration_seconds) == ("t5-base", 32000, 30)


def test_half_precision_files_as_meta_publishes_them_load(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(write_lm(tmp_path, TINY, dtype=torch.float16))
    assert checkpoint.state()["emb.0.weight"].dtype == torch.float16
    assert LanguageModel(checkpoint, lm_config(checkpoint), "fp32")._embedding.dtype == torch.float32


def test_the_digest_changes_with_a_single_weight(tmp_path: Path) -> None:
    digests = []
    for name, weight in (("a", 0.0), ("b", 1.0), ("c", 0.0)):
        (tmp_path / name).mkdir()
        weights = lm_weights(TINY, 4, 0)
        weights["emb.0.weight"][3, 3] = weight
        digests.append(read_checkpoint(saved(tmp_path / name, {"best_state": weights, "xp.cfg": "{a: 1}"})).digest)
    assert digests[0] == digests[2] != digests[1]


def test_references_are_resolved(tmp_path: Path) -> None:
    config = parse_config("{a: '${b.c}', b: {c: '${d}'}, d: 5, e: ['${d}'], f: '${nowhere}'}", tmp_path)
    assert config == {"a": 5, "b": {"c": 5}, "d": 5, "e": [5], "f": "${nowhere}"}
    with pytest.raises(FailedPrecondition, match="itself"):
        parse_config("{a: '${b}', b: '${a}'}", tmp_path)


class Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("executed",)


def test_what_is_no_checkpoint_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / LM_FILE
    with pytest.raises(FailedPrecondition, match=r"no such file; expected a folder with audiocraft's state_dict\.bin"):
        read_checkpoint(path)

    whole = write_lm(tmp_path, TINY).read_bytes()
    for kept in (0, 1000, len(whole) // 2, len(whole) - 30):
        path.write_bytes(whole[:kept])
        with pytest.raises(FailedPrecondition, match="truncated"):
            read_checkpoint(path)
    path.write_bytes(pickle.dumps({"best_state": {}}))
    with pytest.raises(FailedPrecondition, match=r"not written by torch\.save"):
        read_checkpoint(path)
    saved(tmp_path, {"best_state": {}, "xp.cfg": Evil()})
    with pytest.raises(FailedPrecondition, match="can't be read as weights"):
        read_checkpoint(path)
    assert not (tmp_path / "executed").exists()

    for package, problem in (
        ({"model": torch.zeros(1)}, r"expected audiocraft's best_state and xp.cfg, found \['model'\]"),
        (torch.zeros(3), "found Tensor"),
        ({"best_state": [1], "xp.cfg": ""}, "no mapping of tensors"),
        ({"best_state": {}, "xp.cfg": "{"}, "no YAML"),
        ({"best_state": {}, "xp.cfg": "text"}, "xp.cfg is no mapping"),
    ):
        saved(tmp_path, package)
        with pytest.raises(FailedPrecondition, match=problem):
            read_checkpoint(path)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda c: c.update(lm_model="transformer_lm_magnet"), "lm_model is 'transformer_lm_magnet'"),
        (lambda c: c.pop("transformer_lm"), r"transformer_lm\.norm_first is False"),
        (lambda c: c["transformer_lm"].pop("dim"), r"xp.cfg has no transformer_lm\.dim"),
        (lambda c: c["transformer_lm"].update(dim="wide"), "dim is 'wide'; expected a whole number"),
        (lambda c: c["transformer_lm"].update(num_heads=5), "not divided by 2 and by 5 heads"),
        (lambda c: c["transformer_lm"].update(bias_attn=True), "bias_attn is True; only False"),
        (lambda c: c["transformer_lm"].update(positional_embedding="rope"), "'rope'; only 'sin'"),
        (lambda c: c["transformer_lm"].update(hidden_scale=-1), "hidden_scale is -1"),
        (lambda c: c["fuser"].update(prepend=["self_wav"]), "a melody model"),
        (lambda c: c["fuser"].update(cross=[]), r"fuser\.cross is \[\]"),
        (lambda c: c["conditioners"]["description"].update(model="clap"), "is 'clap'; only 't5'"),
        (lambda c: c["codebooks_pattern"].update(modeling="parallel"), "'parallel'; only 'delay'"),
        (lambda c: c["codebooks_pattern"]["delay"].update(delays=[0, 1, 2]), "expected 4 ascending numbers"),
        (lambda c: c["codebooks_pattern"]["delay"].update(delays=[0, 2, 1, 3]), "expected 4 ascending numbers"),
        (lambda c: c["interleave_stereo_codebooks"].update(use=True, per_timestep=True), "per_timestep is True"),
    ],
)
def test_what_the_decode_loop_does_not_know_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], problem: str
) -> None:
    with pytest.raises(FailedPrecondition, match=problem) as refused:
        lm_config(read_checkpoint(changed(tmp_path, change)))
    assert refused.value.metadata == {"file": str(tmp_path / LM_FILE)}


def test_weights_that_do_not_fit_the_configuration_are_refused(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(changed(tmp_path, lambda c: c["transformer_lm"].update(card=63)))
    with pytest.raises(FailedPrecondition, match=r"emb\.0\.weight is \[65, 64\]; xp.cfg expects \[64, 64\]"):
        LanguageModel(checkpoint, lm_config(checkpoint), "fp32")
    checkpoint = read_checkpoint(changed(tmp_path, lambda c: c["transformer_lm"].update(num_layers=4)))
    with pytest.raises(FailedPrecondition, match=r"has no transformer\.layers\.3\."):
        LanguageModel(checkpoint, lm_config(checkpoint), "fp32")


def test_a_codec_of_another_model_is_refused(tmp_path: Path) -> None:
    from tests.support.compression_checkpoints import CodecShape, write_compression_checkpoint

    write_checkpoint(tmp_path)
    write_compression_checkpoint(
        tmp_path, CodecShape(n_filters=4, ratios=(8, 5, 4, 4), dimension=16, codebook_size=32, codebooks=2)
    )
    with pytest.raises(FailedPrecondition, match="2, 32 and 32000 Hz; the language model needs 4, 64 and 32000 Hz"):
        load_musicgen(find_musicgen(tmp_path))


def test_a_missing_text_encoder_says_how_to_get_it(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="the text encoder is transformers'")
    write_checkpoint(tmp_path)
    config = lm_config_dump(TINY, stereo=False)
    config["conditioners"]["description"]["t5"]["name"] = "t5-large"
    saved(tmp_path, {"best_state": lm_weights(TINY, 4, 0), "xp.cfg": yaml.safe_dump(config)})
    with pytest.raises(FailedPrecondition, match="'t5-large' is not in the Hugging Face cache; hf download t5-large"):
        load_musicgen(find_musicgen(tmp_path))


def test_a_file_that_is_written_anew_while_a_model_is_loaded_is_refused(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(write_lm(tmp_path, TINY))
    other = write_lm(tmp_path / "other", TINY, seed=1)
    other.replace(checkpoint.path)
    with pytest.raises(FailedPrecondition, match="written anew while the model was loaded from it; load it again"):
        LanguageModel(checkpoint, lm_config(checkpoint), "fp32")


@pytest.mark.skipif(not MAPS.exists(), reason="the system does not tell what a process has mapped")
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_of_the_file_no_more_than_a_layer_is_in_memory(precision: Precision, mono: Path, t5: None) -> None:
    """What is mapped, and read, counts as the process's memory: it is let go before the next layer is read."""
    checkpoint = read_checkpoint(mono / LM_FILE)
    mapped_before = []

    def is_mapped() -> bool:
        return str(checkpoint.path) in MAPS.read_text()

    def state() -> Mapping[str, Tensor]:
        mapped_before.append(is_mapped())
        tensors = checkpoint.state()
        assert is_mapped()
        return tensors

    watched, config = replace(checkpoint, state=state), lm_config(checkpoint)
    model = LanguageModel(watched, config, precision), TextConditioner(watched, config)
    assert mapped_before == [False] * (config.num_layers + 2)
    assert not is_mapped(), model
