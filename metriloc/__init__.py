"""metriloc (being assembled)."""
