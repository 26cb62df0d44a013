"""HTTP endpoints for programs that know those of OpenAI, ElevenLabs, LocalAI or vLLM-Omni: a client of the gateway."""
