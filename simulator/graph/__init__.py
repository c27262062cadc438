"""What has to be computed? Operators with shapes, FLOPs and bytes; nothing about time."""
