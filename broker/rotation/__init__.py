"""From due to old key destroyed: one verb a file."""
