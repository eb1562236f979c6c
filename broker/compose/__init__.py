"""The object graph: the one place where adapters meet ports. `graph` has `Broker`, which the command line starts from.

Nothing is imported here, so that `ways`, which needs no Vault, loads no Vault library.
"""
