"""What all four servers share: settings, serving, health, errors, logs, metrics, deadlines, PCM framing."""
