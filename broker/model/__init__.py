"""Values and rules: pure, and nothing but the standard library."""
