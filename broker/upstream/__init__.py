"""Real calls to the partner: the canary, and the session that applications and the demo use."""
