"""Partners: profiles, the requests they want, and the verdicts on their answers. Pure."""
