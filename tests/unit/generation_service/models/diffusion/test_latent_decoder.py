"""Pieces of audio against one decoding of everything, for autoencoders of several shapes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from generation_service.models.diffusion.latent_decoder import LatentDecoder
from generation_service.models.diffusion.pipeline_families import PipelineFacts
from generation_service.models.diffusion.pipeline_folder import read_pipeline_folder

FAMILIES = ("stable-audio", "stable-audio-3", "ace-step")


@pytest.fixture(scope="module", params=FAMILIES)
def decoder_parts(request: pytest.FixtureRequest, pipelines: Callable[[str], Path]) -> Iterator[Any]:
    """An autoencoder, and the facts about its pipeline."""
    import diffusers

    found = read_pipeline_folder(pipelines(request.param))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield getattr(diffusers, found.classes["vae"]).from_pretrained(found.folder / "vae"), found.facts


@torch.no_grad()
def decode_pieces(vae: Any, facts: PipelineFacts, latents: torch.Tensor, piece_latents: int) -> np.ndarray:
    decoder = LatentDecoder(vae, facts, piece_latents * facts.hop_frames / facts.sample_rate_hz)
    return np.concatenate([decoder.decode(latents, piece) for piece in range(decoder.count_pieces(latents.shape[-1]))])


@pytest.mark.parametrize("piece_latents", [1, 7, 20])
def test_pieces_are_what_they_are_in_one_decoding(decoder_parts: Any, piece_latents: int) -> None:
    vae, facts = decoder_parts
    latents = torch.randn(1, 4, 45, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole = vae.decode(latents).sample[0].T.numpy()
    audio = decode_pieces(vae, facts, latents, piece_latents)
    assert audio.shape == (45 * facts.hop_frames, 2)
    assert np.abs(audio - whole).max() < 1e-5 * np.abs(whole).max()


def test_they_would_not_be_with_less_context(decoder_parts: Any) -> None:
    vae, facts = decoder_parts
    latents = torch.randn(1, 4, 45, generator=torch.Generator().manual_seed(1))
    whole, cut = (
        decode_pieces(vae, replace(facts, context_latents=context), latents, 20)
        for context in (facts.context_latents, 1)
    )
    assert np.abs(whole - cut).max() > 1e-3 * np.abs(whole).max()
