"""Partners: their rules as data, the request they want, and what their answers mean. Pure."""
