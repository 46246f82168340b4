"""External sources of files (connections): listed, read and run as batches."""
