"""What fetches and builds the programs that Plumbline runs."""
