"""Vault and OpenBao: one connection, how it logs in, where things lie, who may do what."""
