"""What keeps calls to the outside honest: one door, one table of errors."""
