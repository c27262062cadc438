"""What did the user ask for? Validated YAML becomes frozen objects, all in SI units."""
