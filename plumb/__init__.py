"""The roof: what a person asks for. Commands, the demo, reports."""
