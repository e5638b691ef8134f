"""What a command found: the report's data, its files and its tables."""
