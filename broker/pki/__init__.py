"""Keys, requests, certificates: made, read, judged. No network, no Vault; what comes in is hostile until judged."""
