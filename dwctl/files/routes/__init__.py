"""Routes of files, below /ai/v1: `upload` takes them in, `files` shows and deletes them."""
