"""Mail to people: drafts today, sending later."""
