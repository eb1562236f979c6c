"""Grant bundles: authorization, leases and their evidence."""
