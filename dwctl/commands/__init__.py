"""Administrative commands of the Flask CLI; one noun a module."""
