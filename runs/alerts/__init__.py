"""The monitoring that looks when nobody does: readings, rules, alerts, what is said and done about them."""
