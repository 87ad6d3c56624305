"""The pages of the inbox, by what they show."""
