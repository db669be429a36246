"""The report as one HTML file, and as a model card. Reads no results: everything comes in as arguments."""
