"""Evidence: chains of entries, signed statements of where they stand, verification and export."""
