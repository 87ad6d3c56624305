"""What a worker answers is recorded only where it can be read back as it was."""

from decimal import Decimal
from typing import Any

import pytest
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, computed_field, field_serializer
from pydantic.alias_generators import to_camel

from runs import sdk
from runs.sdk import BadDeclaration, worker
from tests.test_sdk import Out, ReadElsewhere, named, registries

__all__ = ["registries"]


class Camel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)
    first_name: str
    price: Decimal = Decimal("1.50")

    @computed_field
    def shout(self) -> str:
        return self.first_name.upper()


class Strict(Camel):
    model_config = ConfigDict(extra="forbid")
    inner: list[Camel] = []


def test_a_model_with_aliases_and_computed_fields_is_read_back() -> None:
    @worker
    def hand_on(given: Strict) -> list[Strict]:
        return [given]

    value = Strict(firstName="Ann", inner=[Camel(firstName="Bo")])
    written = {"firstName": "Ann", "price": "1.50", "inner": [{"firstName": "Bo", "price": "1.50"}]}
    assert hand_on.dump([value]) == [written]
    assert hand_on.output.validate_python(hand_on.dump([value])) == [value]
    assert hand_on.dump_input({"given": value}) == hand_on.dump_input({"given": written}) == {"given": written}
    assert Strict.model_validate(sdk.dump_model(value)) == value


class Unreadable(BaseModel):
    price: Decimal

    @field_serializer("price")
    def in_euro(self, price: Decimal) -> str:
        return f"{price} EUR"


def test_an_answer_that_cannot_be_read_back_is_refused_before_it_is_recorded() -> None:
    @worker
    def price(text: str) -> Unreadable:
        return Unreadable(price=Decimal(text))

    with pytest.raises(ValidationError, match="price"):
        price.dump(price(text="3"))


class WrittenElsewhere(BaseModel):
    number: int = Field(default=0, serialization_alias="no")


class ReadTwice(BaseModel):
    number: int = Field(default=0, validation_alias=AliasChoices("no", "number"))


class Forgetful(BaseModel):
    number: int = 0
    secret: str = Field(default="", exclude=True)


class Tree(BaseModel):
    children: "list[Tree]" = []
    leaf: dict[str, ReadElsewhere] = {}


@pytest.mark.parametrize("model", [ReadElsewhere, WrittenElsewhere, ReadTwice, Forgetful, Tree])
@pytest.mark.parametrize("side", ["inputs", "output"])
def test_a_model_that_is_not_written_as_it_is_read_is_refused(model: Any, side: str) -> None:
    taken, given = (list[model], Out) if side == "inputs" else (Out, list[model])
    with pytest.raises(BadDeclaration, match=f"In the {side} of test_sdk.do, .* is written with other keys than it is read"):
        worker(named("do", {"text": taken, "return": given}))
