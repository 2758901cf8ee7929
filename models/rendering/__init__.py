"""The 2.5-D scene renderer that makes training data and the embedded sample."""
