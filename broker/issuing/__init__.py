"""Bundles: who may have one, for how long, and the evidence of it."""
