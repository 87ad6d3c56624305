"""One adapter per outside system; each goes through guard, and only workers call them."""
