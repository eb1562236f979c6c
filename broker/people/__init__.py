"""Words to people: mail drafts, later mail itself."""
