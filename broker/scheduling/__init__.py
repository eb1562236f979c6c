"""The scheduler: the next step of each account, done in time, by one leader."""
