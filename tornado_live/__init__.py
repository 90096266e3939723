"""tornado-live: a self-hosted gateway between people who talk and the Gemini Live API."""

__version__ = "0.1.0"
