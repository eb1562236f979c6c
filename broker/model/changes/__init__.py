"""Changes of an account: pure functions that return the changed account, with the evidence of the change in it.

Each returns its argument when nothing is left to do, so that it is safe to repeat. None reads a clock: the time and the
actor come as a `Stamp`.
"""
