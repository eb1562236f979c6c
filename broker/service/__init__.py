"""Issue bundles over HTTP. Only this room knows the HTTP server."""
