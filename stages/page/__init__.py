"""The HTML page of a report: its figures (SVG), its sentences and its template. Nothing here reads results."""
