"""What Merganser costs, as ratios of a raw consumer in the same run on the same broker: ``make bench``."""
