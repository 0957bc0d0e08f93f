"""A node under load: is every answer right, and does the node keep its bounds?"""
