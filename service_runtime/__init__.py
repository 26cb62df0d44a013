"""What all four servers share: settings, serving and draining, health, errors, logs, metrics, deadlines, PCM framing."""
