"""Publish bundles to a directory, as files in the formats that programs read."""
