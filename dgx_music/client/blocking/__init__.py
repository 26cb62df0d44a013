"""The client whose calls block: the asynchronous one, on an event loop in a thread of its own."""
