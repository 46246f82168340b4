"""Files and batches: one module for each claim, each with a `measure(report)` that prints its figures. `__main__` runs them."""
