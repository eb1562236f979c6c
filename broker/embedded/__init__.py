"""OpenBao as a child process, for laptops, demos and tests.

The key that unseals it lies beside its data, and so does the secret that sets it up: reading the directory gives access
to everything. Therefore one command is enough, and it is not for production.
"""
