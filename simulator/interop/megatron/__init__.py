"""A script that launches Megatron-LM becomes a run file."""
