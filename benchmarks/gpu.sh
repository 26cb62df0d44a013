#!/bin/sh
# Measures the engine on this machine's GPU within 5 minutes: benchmarks/gpu.sh [--device cpu --tiny] [--output FILE]
#
# Needs Python 3.11 or 3.12 with torch 2.11 to 2.13 for CUDA, triton, transformers, sentencepiece, pyyaml, numpy;
# pydantic-settings, structlog, platformdirs, nvidia-ml-py; for the tests pytest, hypothesis and scipy. No network, no gRPC
# stubs, no installation of this project.
# Each stage has a time limit of its own; results are in gpu-results.json as soon as they are known, and a table is
# printed at the end.
cd "$(dirname "$0")/.." || exit
exec env PYTHONPATH=".${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 PYTORCH_NVML_BASED_CUDA_CHECK=1 "${PYTHON:-python3}" -m benchmarks.gpu "$@"
