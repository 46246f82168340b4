"""dwctl: a control layer for LLM inference that teams host themselves."""

__version__ = "0.1.0"
