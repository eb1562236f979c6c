"""The consumer's process: files that follow rotations, and a program that runs beside them."""
