"""The command line: one file per noun, imported when the noun is used. No other room imports it."""
