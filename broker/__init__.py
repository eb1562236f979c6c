"""A credential broker backed by HashiCorp Vault or OpenBao."""

__version__ = "0.1.0"
