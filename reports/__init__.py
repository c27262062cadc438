"""How do people see a result? Screens, pages, figures and traces. Sees results, never how they are computed."""
