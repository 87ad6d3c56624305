"""pydantic's complaints, in the words of a form."""

from typing import Any

PLAIN: dict[str, str] = {
    "missing": "Fill this in.",
    "int_parsing": "Enter a whole number.",
    "int_from_float": "Enter a whole number.",
    "float_parsing": "Enter a number.",
    "finite_number": "Enter a number.",
    "decimal_parsing": "Enter a number.",
    "bool_parsing": "Choose yes or no.",
    "literal_error": "Choose one of the values.",
    "enum": "Choose one of the values.",
    "model_type": 'Enter an object, as in {"name": 5}.',  # pydantic's own names the class
    "extra_forbidden": "This name is not known.",
}


def plain(complaint: Any) -> str:
    """pydantic's complaint, in the words of a form."""
    kind, message = complaint["type"], complaint["msg"]
    if kind == "string_too_short" and complaint["input"] == "":
        return PLAIN["missing"]
    if kind == "string_too_long":
        limit = complaint["ctx"]["max_length"]
        return f"At most {limit:,} characters; this has {len(complaint['input']):,}."
    return PLAIN.get(kind, str(message).removeprefix("Value error, ").removeprefix("Assertion failed, "))
