"""Bundles on their way to a consumer: files in a directory, in the formats that programs read."""
