"""Forms made from what an agent or a worker declares, and the values typed into them."""

from runs.forms.schema_form import SchemaForm, model_form

__all__ = ["SchemaForm", "model_form"]
