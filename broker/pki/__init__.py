"""Keys, signing requests and certificates: make, read, verify. No network, no Vault; unverified input is hostile."""
