"""Forms made from what an agent or a worker declares, with the values typed into them; and of the address of a channel."""

from runs.forms.address import AddressForm
from runs.forms.schema_form import SchemaForm, model_form

__all__ = ["AddressForm", "SchemaForm", "model_form"]
