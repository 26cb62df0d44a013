"""LoRA adapters (Hu et al. 2021) in PEFT's layout: their files, and what they change in the language model."""
