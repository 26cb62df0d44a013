"""Claims jobs from storage, runs them on the engine, and streams the audio to export."""
