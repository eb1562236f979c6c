"""Structured logs: `log` writes events without any library, `rendering` prints them."""
