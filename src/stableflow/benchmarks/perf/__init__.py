"""What an edit costs, measured side by side with the published way of working."""
