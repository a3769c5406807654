"""Charts as inline SVG: no scripts, colours from the page's style sheet, each drawn for a wide and a narrow screen."""
