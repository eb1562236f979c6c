"""How the broker gets its own token: one file for each of Vault's ways in."""
