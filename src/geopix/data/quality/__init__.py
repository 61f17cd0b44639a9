"""Looking at records as data: what is wrong with them, what can be repaired, what they hold, and how they are divided."""
