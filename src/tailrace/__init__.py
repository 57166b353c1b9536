"""Durable, resumable agent streams over MongoDB change streams and server-sent events."""

__version__ = "0.1.0"
