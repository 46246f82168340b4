"""Libraries that nobody here wrote, unchanged and at their defaults, against real processes: what they read must make sense to them."""
