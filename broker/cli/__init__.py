"""The command line: one noun a file, imported when it is typed. Imported by nobody else."""
