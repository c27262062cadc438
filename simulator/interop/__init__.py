"""What users already have, in and out: Hugging Face and Megatron-LM files, settings for other programs."""
