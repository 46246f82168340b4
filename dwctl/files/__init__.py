"""Files of request templates: uploaded line by line, listed, read, deleted, and what running them would cost."""
