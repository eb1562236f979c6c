"""OpenBao as a child process, for laptops, demos and tests.

The key that unseals it lies beside its data, and so does the secret that sets it up: whoever reads the directory has
everything. That is what makes one command enough, and why a production configuration refuses it.
"""
