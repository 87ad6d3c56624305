"""What a form consists of: fields, groups of them and lists; each can put together the JSON value typed into it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from django.forms.boundfield import BoundField

from runs.forms.fields import MISSING

Place = tuple[int | str, ...]
HIDDEN = 2  # fields that come with a list: see counts()


@dataclass
class Typed:
    """What a form was given, field by field; reading it fills `places`: which node holds which part of the value."""

    cleaned: dict[str, Any]
    places: dict[Place, "Node"] = field(default_factory=dict)


@dataclass
class Leaf:
    """One field."""

    name: str
    label: str
    bound: BoundField
    textual: bool
    optional: bool
    kind: str = "leaf"

    def read(self, typed: Typed, place: Place) -> Any:
        typed.places[place] = self
        return typed.cleaned.get(self.name, MISSING)

    def is_filled(self) -> bool:
        return self.bound.data not in (None, "", False)

    def control(self) -> str:
        """The field's HTML, marked when it has an error."""
        plain = self.bound.field.widget.attrs["class"]
        return self.bound.as_widget(attrs={"class": f"{plain} is-invalid" if self.bound.errors else plain})


@dataclass
class Group:
    """An object: a fieldset, with a `switch` where there may be none."""

    name: str
    label: str
    description: str
    children: dict[str, "Node"]
    switch: BoundField | None
    outermost: bool = False
    kind: str = "group"

    def read(self, typed: Typed, place: Place) -> Any:
        typed.places[place] = self
        if self.switch and not typed.cleaned[self.switch.name]:
            return None
        values = {key: child.read(typed, (*place, key)) for key, child in self.children.items()}
        return {key: value for key, value in values.items() if value is not MISSING}

    def is_filled(self) -> bool:
        return any(child.is_filled() for child in self.children.values())


@dataclass
class Row:
    """One item of a list; only one that was there can be removed."""

    item: "Node"
    remove: BoundField | None

    def is_filled(self) -> bool:
        return self.item.is_filled()


@dataclass
class Rows:
    """A list. The first `kept` rows were there; a later one counts once something is typed into it."""

    name: str
    label: str
    description: str
    rows: list[Row]
    kept: int
    is_full: bool = False
    kind: str = "rows"

    @property
    def each(self) -> int:
        """How many fields one more row takes."""
        return size(self.rows[-1].item) if self.rows else 0

    def read(self, typed: Typed, place: Place) -> Any:
        typed.places[place] = self
        values = [row.item.read(typed, (*place, at)) for at, row in enumerate(self._counted(typed))]
        return [None if value is MISSING else value for value in values]

    def is_filled(self) -> bool:
        return self.kept > 0 or any(row.is_filled() for row in self.rows)

    def _counted(self, typed: Typed) -> Iterator[Row]:
        for row in self.rows:
            counts = row.is_filled() if row.remove is None else not typed.cleaned[row.remove.name]
            if counts:
                yield row


Node = Leaf | Group | Rows


def within(node: Node) -> list[Node]:
    if isinstance(node, Group):
        return list(node.children.values())
    return [row.item for row in node.rows] if isinstance(node, Rows) else []


def leaves(node: Node) -> Iterator[Leaf]:
    if isinstance(node, Leaf):
        yield node
    for one in within(node):
        yield from leaves(one)


def lists(node: Node) -> Iterator[Rows]:
    if isinstance(node, Rows):
        yield node
    for one in within(node):
        yield from lists(one)


def size(node: Node) -> int:
    """How many fields are sent of it."""
    own = 1 if isinstance(node, Leaf) else bool(node.switch) if isinstance(node, Group) else HIDDEN
    removes = sum(row.remove is not None for row in node.rows) if isinstance(node, Rows) else 0
    return own + removes + sum(map(size, within(node)))


def counts(node: Node) -> Iterator[tuple[str, int]]:
    """Of each list how many rows it shows, and how many of these were there, under the names by which a form sends them."""
    if isinstance(node, Rows):
        yield from ((f"{node.name}.kept", node.kept), (f"{node.name}.rows", len(node.rows)))
    for one in within(node):
        yield from counts(one)
