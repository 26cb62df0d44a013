"""Deadlines of the calls that the gateway and the command line make."""

CALL_TIMEOUT_SECONDS = 30.0
"""For a call with a single response."""
RENDER_TIMEOUT_SECONDS = 3600.0
"""For a render: an hour of audio takes minutes to encode as MP3, and other renders may be queued before it."""
STREAM_TIMEOUT_SECONDS = 24 * 3600.0
"""For a stream, which may wait for the longest audio to be generated and then play it in real time."""
