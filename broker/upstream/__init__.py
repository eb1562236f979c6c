"""Calls to the partner: the canary, and the session for applications."""
