"""How do people see a result? Screens, pages, figures, traces. Sees results, not how they are computed."""
