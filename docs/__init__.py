"""Documents, and `docs.generate`, which writes those that are made from code."""
