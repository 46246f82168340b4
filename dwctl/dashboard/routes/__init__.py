"""The screens, one module each: from the address to operations to a template."""
