"""What comes out of batches, as JSON lines: output and error files, results, and files as they came."""
