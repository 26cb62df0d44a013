"""Uses diffusers as a library: without its bars, notes and warnings, which would reach the server's log unformatted."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata

from dgx_music.errors import FailedPrecondition
from service_runtime.optional_deps import install_extra_command

REQUIRED = ("diffusers", "torchsde", "accelerate")
"""What the extra `diffusion` adds. diffusers itself imports only what it finds."""


def check_installed() -> str:
    """Returns diffusers' version. Raises FailedPrecondition if a library is missing. Imports none."""
    for name in REQUIRED:
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError as error:
            raise FailedPrecondition(
                f"diffusion models need {name}, which is not installed; run {install_extra_command('diffusion')}",
                reason="DIFFUSERS_MISSING",
            ) from error
    return metadata.version("diffusers")


@contextmanager
def quiet_diffusers() -> Iterator[None]:
    """Keeps diffusers and transformers from printing."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    loggings = (diffusers_logging, transformers_logging)
    levels = [each.get_verbosity() for each in loggings]
    had_bars = [each.is_progress_bar_enabled() for each in loggings]
    try:
        for each in loggings:
            each.set_verbosity_error()
            each.disable_progress_bar()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for each, level, had_bar in zip(loggings, levels, had_bars, strict=True):
            each.set_verbosity(level)
            if had_bar:
                each.enable_progress_bar()
