"""Use-cases of accounts: registration, and rotation from a signing request to a retired generation."""
