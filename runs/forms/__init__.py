"""Forms made from what an agent or a worker declares, with the values typed into them; of tags; and of a channel."""

from runs.forms.address import AddressForm
from runs.forms.schema_form import SchemaForm, model_form
from runs.forms.tags import TagsForm

__all__ = ["AddressForm", "SchemaForm", "TagsForm", "model_form"]
