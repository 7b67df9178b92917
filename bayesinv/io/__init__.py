"""Files that appear whole or not at all, arrays in one file, and text on a console."""
