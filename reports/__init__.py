"""How do people see a result? Terminal screens and traces. Sees results, never how they are computed."""
