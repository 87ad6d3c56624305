"""What the author of an agent may declare: each check raises BadDeclaration, one sentence that says what to change."""

import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from decimal import Decimal
from typing import Any, Generic, Literal, ParamSpec, get_type_hints

from django.core.exceptions import ImproperlyConfigured
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, create_model
from pydantic.errors import PydanticUserError
from typing_extensions import TypeVar

from runs.engine import act
from runs.engine.backoff import LONGEST_WAIT_SECONDS
from runs.engine.canonical import clean

# As wide as the columns of Run and Step that keep them.
NAME_LETTERS, TITLE_LETTERS, VERSION_LETTERS = 120, 200, 40
NOTE_LETTERS = 300
SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,79}")


P = ParamSpec("P")
R = TypeVar("R")
Effect = Literal["none", "idempotent", "once"]
Risk = Literal["normal", "high"]


class BadDeclaration(ImproperlyConfigured):
    """An agent or worker that cannot be used as it is written; the message says what to change."""


@dataclass(frozen=True)
class Worker(Generic[P, R]):
    """A function that does one thing for a supervisor, with what the engine must know about it."""

    function: Callable[..., Any]
    name: str
    title: str
    input_model: type[BaseModel]
    output: TypeAdapter[Any]
    output_type: Any
    effect: Effect = "none"
    risk: Risk = "normal"  # "high": it cannot be taken back, so nobody decides it in passing, whatever a policy says
    critical: bool = False
    fallback: Any = None  # another Worker, ask_human, or a Skip
    gate: str = ""
    says: str = ""  # what a person reads who is to approve it: "Refund {amount_cents:money} EUR to {customer}"
    attempts: int | None = None
    timeout: float | None = None  # seconds for one attempt
    total_timeout: float | None = None  # seconds for all of them, with the waits between
    masked: tuple[str, ...] = ()  # names of text fields that are never recorded
    uses: tuple[str, ...] = ()  # names of the dependencies that it may call
    remarks: bool = False  # it reads current_step().remark: what a reviewer wrote with "send back" or "retry"
    asks: bool = False
    draft: Any = None  # of a question: the JSON value that the agent suggests
    within: float | None = None  # seconds in which a person must have decided or answered

    def gated(self, reason: str | None, *, within: float | None = None) -> "Worker[P, R]":
        """The same worker, executed only after a person approved it. Without a reason it is as it was declared.

        When nobody has decided within so many seconds, the supervisor gets Expired.
        """
        return replace(self, gate=reason or self.gate, within=seconds(within, self.name))

    def dump(self, value: Any) -> Any:
        """The answer as the JSON value that is recorded. Raises pydantic's ValidationError when it cannot be read back."""
        recorded = self.output.dump_python(self.output.validate_python(value), mode="json", by_alias=True, round_trip=True)
        self.output.validate_python(recorded)
        return recorded

    def dump_input(self, given: Any) -> Any:
        """The inputs, by parameter, likewise."""
        recorded = dump_model(self.input_model.model_validate(given))
        self.input_model.model_validate(recorded)
        return recorded

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Call the function itself, as a test does; a run calls `run.step`."""
        return self.function(*args, **kwargs)


def dump_model(model: BaseModel) -> Any:
    """The JSON value that the model itself reads back: under its aliases, without what is computed."""
    return model.model_dump(mode="json", by_alias=True, round_trip=True)


@dataclass(frozen=True, slots=True)
class Budget:
    """What a run may spend before a person is asked: money (in CURRENCY), tokens and calls of models, and seconds.

    The runs that it starts spend from it too. Seconds count from its first start, but while it waits for a person. None: no
    limit.
    """

    money: Decimal | str | int | None = None
    tokens: int | None = None
    calls: int | None = None
    seconds: int | None = None

    def __post_init__(self) -> None:
        for one in fields(self):
            _check_limit(one.name, getattr(self, one.name))

    def limits(self) -> dict[str, Decimal]:
        """Unit -> limit, of those that have one."""
        return {one.name: Decimal(found) for one in fields(self) if (found := getattr(self, one.name)) is not None}


def _check_limit(unit: str, value: Any) -> None:
    if value is None:
        return
    whole = isinstance(value, int) and not isinstance(value, bool)
    try:
        fits = (whole or (unit == "money" and isinstance(value, Decimal | str))) and 0 < Decimal(value) <= 10**12
    except ArithmeticError:
        fits = False
    if not fits:
        wanted = 'an amount such as "2.50"' if unit == "money" else "a whole number"
        raise BadDeclaration(f"The budget has {unit}={value!r}: it must be {wanted} above 0, or None for no limit.")


def place(function: Callable[..., Any]) -> str:
    """Where a function is written, as a sentence names it."""
    return f"{function.__module__}.{function.__name__}"


def recorded_name(function: Any) -> str:
    """What the steps of a worker are recorded under for ever."""
    if not inspect.isfunction(function):
        raise BadDeclaration(f"Only a function can be declared, not {function!r}: put the decorator above a def.")
    return f"{function.__module__.rpartition('.')[2]}.{function.__name__}"


def check_name(name: str, title: str) -> None:
    """The name and title that every step of this worker is recorded with."""
    if len(name) > NAME_LETTERS:
        raise BadDeclaration(f"The name {name!r} is longer than {NAME_LETTERS} letters: shorten the function's or the module's.")
    if len(title) > TITLE_LETTERS:
        raise BadDeclaration(f"The title of {name} is longer than {TITLE_LETTERS} letters: {title[:60]}...")


def check_agent(slug: str, version: str, threshold: float) -> None:
    """What identifies an agent, and the default of its threshold."""
    if not SLUG.fullmatch(str(slug)):
        raise BadDeclaration(f"The slug {slug!r} cannot stand in an address: use 1 to 80 of a-z, 0-9 and -, not - first.")
    if not 0 < len(version) <= VERSION_LETTERS:
        raise BadDeclaration(f"The agent {slug!r} has the version {version!r}; it must have 1 to {VERSION_LETTERS} letters.")
    if not 0 <= threshold <= 1:
        raise BadDeclaration(f"The agent {slug!r} has the threshold {threshold}; it must be between 0 and 1.")


def check_tenant(slug: str, field: object, inputs: type[BaseModel]) -> None:
    """Whose work a run does is a plain value of its input; "" where that makes no difference."""
    if field == "":
        return
    if not (isinstance(field, str) and field in inputs.model_fields):
        known = _list(set(inputs.model_fields))
        raise BadDeclaration(f"The tenant of {slug!r} is {field!r}, which is no field of its input; it has {known}.")
    schema = _objects(inputs.model_json_schema(by_alias=False))[""][field]
    if not {part.get("type") for part in schema.get("anyOf", [schema])} <= {"string", "integer", "null"}:
        raise BadDeclaration(f"The tenant of {slug!r} is {field!r}, which must be text or a whole number.")


def check_config(slug: str, config: type[BaseModel]) -> None:
    """An agent works before an admin has set anything, so every field has a default, and one that is allowed."""
    what = f"the configuration of {slug!r}"
    if not _is_model(config):
        raise BadDeclaration(f"The configuration of {slug!r} is not a pydantic model: {config!r}.")
    check_written(TypeAdapter(config), what)
    try:
        config.model_validate(config().model_dump(mode="json", by_alias=True, round_trip=True))
    except ValidationError as error:
        fields = ", ".join(str(one["loc"][0]) for one in error.errors() if one["loc"]) or config.__name__
        raise BadDeclaration(f"In {what} every field needs a default that fits it; change: {fields}.") from error


# --- functions --------------------------------------------------------------------------------------------------


def annotations(function: Callable[..., Any], name: str) -> dict[str, Any]:
    """Types by parameter and "return", of a plain function that says them all."""
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise BadDeclaration(f"{name} is asynchronous or yields; a job process calls it plainly: write def, and return.")
    try:
        hints = get_type_hints(function, include_extras=True)
    except (NameError, AttributeError, TypeError, SyntaxError) as error:
        raise BadDeclaration(f"An annotation of {name} cannot be resolved ({error}): import the type where {name} is.") from error
    wanted = [*inspect.signature(function).parameters, "return"]
    missing = [parameter for parameter in wanted if parameter not in hints]
    if missing:
        raise BadDeclaration(f"{name} needs a type annotation for: {', '.join(missing)}.")
    return {parameter: hints[parameter] for parameter in wanted}


def input_model(function: Callable[..., Any], hints: dict[str, Any], *, name: str, title: str) -> type[BaseModel]:
    """The parameters of a worker as a pydantic model, which is given by keyword."""
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise BadDeclaration(f"{name} cannot take {parameter}: a run gives each input by its own keyword.")
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[parameter.name] = (hints[parameter.name], default)
    with _explained(f"The inputs of {name}"):
        model: type[BaseModel] = create_model(title, __config__=ConfigDict(extra="forbid"), **fields)
    keys = check_written(TypeAdapter(model), f"the inputs of {name}")
    if renamed := set(fields) - keys:
        raise BadDeclaration(f"The inputs of {name} are named by its parameters: no alias, no _ in front ({_list(renamed)}).")
    return model


def output_adapter(output_type: Any, name: str) -> TypeAdapter[Any]:
    """What validates and writes the answers of a worker."""
    with _explained(f"The output of {name}"):
        adapter: TypeAdapter[Any] = TypeAdapter(output_type)
    check_written(adapter, f"the output of {name}")
    return adapter


def check_masked(name: str, masked: object, inputs: type[BaseModel], output: TypeAdapter[Any]) -> None:
    """What is masked must be plain text, because its mask is read back in its place."""
    if not (isinstance(masked, tuple) and all(isinstance(field, str) for field in masked)):
        raise BadDeclaration(f'masked of {name} must be a tuple of names, as in masked=("card_number",).')
    written = [*_objects(inputs.model_json_schema()).values(), *_objects(output.json_schema()).values()]
    for field in masked:
        found = [properties[field] for properties in written if field in properties]
        if not found:
            raise BadDeclaration(f"{name} masks {field!r}, but neither its inputs nor its output have a field of that name.")
        if not all(_is_plain_text(schema) for schema in found):
            raise BadDeclaration(f"{name} masks {field!r}, which must be plain text: annotate it as str.")


def _is_plain_text(schema: dict[str, Any]) -> bool:
    said = {key: value for key, value in schema.items() if key not in ("title", "description", "default", "examples")}
    return said == {"type": "string"} or sorted(map(str, said.get("anyOf", ()))) == ["{'type': 'null'}", "{'type': 'string'}"]


def dependencies(given: object, name: str) -> tuple[str, ...]:
    """The names of what a worker uses, given as one or as a tuple."""
    names = (given,) if isinstance(given, str) else given
    if not (isinstance(names, tuple) and all(isinstance(one, str) and SLUG.fullmatch(one) for one in names)):
        raise BadDeclaration(f'uses of {name} must name dependencies, as in uses="card-processor" or uses=("bank", "mail").')
    return names


def seconds(given: float | None, what: str) -> float | None:
    """A length of time, or None. Raises BadDeclaration for what is none."""
    if given is not None and not 0 <= given <= LONGEST_WAIT_SECONDS:
        raise BadDeclaration(f"{what}: {given!r} is not a number of seconds from 0 to a year.")
    return None if given is None else float(given)


def draft(given: Any, answer: Any, name: str) -> Any:
    """What a question proposes as its answer, as it is recorded, or None."""
    if given is not None and not isinstance(given, answer):
        raise BadDeclaration(f"The draft of {name} is a {type(given).__name__}; give a value of {answer.__name__}.")
    return None if given is None else dump_model(given)


def models_of(function: Callable[..., Any], run: type) -> tuple[type[BaseModel], type[BaseModel]]:
    """The input and the output model of a supervisor, which takes a run first."""
    where = place(function)
    hints = list(annotations(function, where).values())
    kinds = {parameter.kind for parameter in inspect.signature(function).parameters.values()}
    by_position = kinds <= {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
    takes_run = run in (hints[0], getattr(hints[0], "__origin__", None))
    if not (len(hints) == 3 and by_position and takes_run and _is_model(hints[1]) and _is_model(hints[2])):
        raise BadDeclaration(
            f"The agent {where} must take (run, input) and return an output; input and output are pydantic models."
        )
    check_written(TypeAdapter(hints[1]), f"the input of {where}")
    check_written(TypeAdapter(hints[2]), f"the output of {where}")
    return hints[1], hints[2]


def check_fallback_inputs(name: str, given: type[BaseModel], other: str, taken: type[BaseModel]) -> None:
    """A fallback is called with the recorded input of the worker that failed."""
    required = {field for field, info in taken.model_fields.items() if info.is_required()}
    if unfit := (given.model_fields.keys() - taken.model_fields.keys()) | (required - given.model_fields.keys()):
        raise BadDeclaration(f"The fallback {other} takes other inputs than {name} ({_list(unfit)}): make them the same.")


def check_says(name: str, says: object, inputs: type[BaseModel]) -> None:
    """What names the act before it is approved is made of the inputs alone."""
    if not isinstance(says, str) or (says and "\n" in says):
        raise BadDeclaration(f'says of {name} must be one line of text, as in says="Refund {{amount}} to {{customer}}".')
    if wrong := act.problem(says, inputs.model_fields):
        raise BadDeclaration(f"says of {name} cannot be used: {wrong}.")


def check_skip(name: str, note: object, value: Any, output: TypeAdapter[Any]) -> None:
    """A step that is skipped has a note for people, and a value that its supervisor can go on with."""
    if not (isinstance(note, str) and note.strip() and clean(note, NOTE_LETTERS) == note):
        raise BadDeclaration(f"{name} is skipped with the note {note!r}: say what is missing, in 1 to {NOTE_LETTERS} letters.")
    try:
        output.validate_python(value)
    except ValidationError as error:
        what = "give skip(..., value=...) that fits it, or let it return None as well"
        raise BadDeclaration(f"{name} is skipped with {value!r}, which is no result of it: {what}.") from error


# --- values that are recorded -----------------------------------------------------------------------------------


def check_written(adapter: TypeAdapter[Any], what: str) -> set[str]:
    """Each key that is written is the key that is read: in the log, in forms, and when a run is replayed.

    Returns the keys of the outermost object. pydantic's two schemas show every alias, and every field that is excluded.
    """
    with _explained(what[0].upper() + what[1:]):
        read, written = (_objects(adapter.json_schema(mode=mode)) for mode in ("validation", "serialization"))
    for name in sorted(read.keys() | written.keys()):
        known, kept = read.get(name, {}), written.get(name, {})
        computed = {key for key, part in kept.items() if part.get("readOnly") and key not in known}
        if differing := known.keys() ^ (kept.keys() - computed):
            raise BadDeclaration(
                f"In {what}, {name or 'it'} is written with other keys than it is read with ({_list(differing)}): "
                "give one alias for both, exclude no field, and serialise no model as something else."
            )
    return set(read[""])


def _objects(schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Properties by definition, "" being the outermost one."""
    definitions = schema.get("$defs", {})
    outermost = definitions.get(schema.get("$ref", "").rpartition("/")[2], schema)
    return {name: part.get("properties", {}) for name, part in (definitions | {"": outermost}).items()}


@contextmanager
def _explained(subject: str) -> Iterator[None]:
    """Say in one sentence what pydantic cannot use."""
    try:
        yield
    except (PydanticUserError, NameError, TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0].partition(". ")[0].rstrip(".")
        raise BadDeclaration(f"{subject} cannot be written as JSON ({reason}): use plain types and pydantic models.") from error


def _is_model(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseModel)


def _list(names: set[str]) -> str:
    return ", ".join(sorted(names))
