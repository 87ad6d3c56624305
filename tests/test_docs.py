"""What the documents name is what the code has, and the other way round."""

import re
from pathlib import Path

import pytest

from runs.engine.events import Kind
from runs.models import RunStatus, StepStatus

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
NOT_A_FLOOR = {"migrations", "templatetags", "data", "__init__"}


def text(name: str) -> str:
    return (ROOT / name).read_text()


def table_names(document: str) -> set[str]:
    """What stands in backticks in the first column of the tables, and in the modules column of the floors."""
    return {name for names in re.findall(r"`([\w/]+)`", document) for name in names.split("/")}


def test_every_setting_of_the_environment_is_documented() -> None:
    read = set(re.findall(r"env\.\w+\(\s*\"(\w+)\"", text("agentops/settings.py")))
    assert read, "the pattern finds nothing"
    missing = {name for name in read if f"`{name}`" not in text("docs/operations.md")}
    assert not missing


def test_every_documented_setting_exists() -> None:
    documented = set(re.findall(r"^\| (`[A-Z_`, ]+`) \|", text("docs/operations.md"), re.MULTILINE))
    names = {name for cell in documented for name in re.findall(r"`([A-Z_]+)`", cell)}
    code = "".join(path.read_text() for path in ROOT.glob("agentops/**/*.py")) + text("Makefile") + text("Procfile")
    code += "".join(path.read_text() for path in (ROOT / "runs" / "integrations").glob("*.py"))
    assert {name for name in names if name not in code} == set()


def test_every_event_kind_is_documented_and_no_other() -> None:
    table = text("docs/states.md").split("## Event kinds")[1]
    documented = {name for row in re.findall(r"^\| (.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert documented == {str(kind) for kind in Kind}


def test_every_status_is_documented() -> None:
    states = text("docs/states.md")
    assert all(status in states for status in {*RunStatus.values, *StepStatus.values})


@pytest.mark.parametrize("app", ["runs", "reviews", "agentops"])
def test_every_module_is_in_the_architecture(app: str) -> None:
    modules = {path.stem for path in (ROOT / app).iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    missing = {name for name in modules - NOT_A_FLOOR if name not in table_names(text("docs/architecture.md"))}
    assert not missing


def test_every_command_is_in_the_architecture() -> None:
    commands = {path.stem for path in (ROOT / "agentops/management/commands").glob("*.py")} - {"__init__"}
    assert commands <= table_names(text("docs/architecture.md"))


def test_links_between_documents_lead_somewhere() -> None:
    for document in [*DOCS.rglob("*.md"), ROOT / "README.md"]:
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_the_agent_in_the_guide_works() -> None:
    """Its code is executed as it stands."""
    guide = text("docs/writing-an-agent.md")
    code = re.search(r"```python\n(.*?)```", guide, re.DOTALL)
    assert code is not None
    module: dict[str, object] = {"__name__": "guide"}
    exec(compile(code[1], "docs/writing-an-agent.md", "exec"), module)
    from runs import sdk

    agent = sdk.AGENTS.pop("languages")
    assert agent.threshold == 0.8
    assert sdk.WORKERS.pop("guide.guess_language")(text="le chat et la souris").value == "French"
