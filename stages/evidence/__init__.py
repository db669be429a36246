"""Statistics on question tables: estimates, paired comparison, verdicts and the tables that people read."""
