"""Vault and OpenBao: connection, logins, paths, documents, policies, set-up."""
