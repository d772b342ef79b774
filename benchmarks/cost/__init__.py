"""What a PGD step costs by counting: networks, their operators, machines, and what ideas change."""
