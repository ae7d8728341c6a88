"""What a newcomer does with clrsearch and with its peers, and what comes of it."""
