"""Bundles from the service. It loads neither requests nor cryptography, so that a command starts in a moment."""
