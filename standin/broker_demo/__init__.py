"""The demonstration behind `broker demo`: the whole job against a vault and a partner of its own."""
