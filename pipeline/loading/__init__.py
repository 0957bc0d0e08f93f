"""Import and export: files into tables, and tables into files."""
