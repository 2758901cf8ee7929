"""Training and evaluation of detector and reader on rendered and real data."""
