"""Issue bundles over HTTP. Only this room knows the web framework and the server."""
