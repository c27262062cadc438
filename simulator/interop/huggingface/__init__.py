"""A Hugging Face ``config.json`` becomes a model file."""
