"""An online shop on Merganser: `python -m examples.shop`. README.md leads through the code."""
