"""The search for settings: what may vary, several seeds a trial, trials that resume, the best one written down."""
