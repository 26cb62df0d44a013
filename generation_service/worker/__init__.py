"""Claims jobs from storage, runs them on the engine, and streams their audio to export."""
