"""The search for settings: what may vary, seeds as one program, trials that resume, the best one written down."""
