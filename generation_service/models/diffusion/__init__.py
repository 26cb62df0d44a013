"""Models that make music by denoising: Stable Audio and ACE-Step, by the modules of diffusers' pipelines."""
