"""What happens when all of it runs at once? Streams, rendezvous and idle time, replayed on SimPy."""
