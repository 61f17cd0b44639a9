"""From answers to numbers that can be believed: what was scored, by which rule, how sure it is, and pictures of it."""
