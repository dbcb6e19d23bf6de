"""Collects what the validation tests measure, and writes the page of results where `--validation-report` says."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.validation.report import Row, page

ROWS: Final = pytest.StashKey[dict[str, list[Row]]]()
DOCS: Final = pytest.StashKey[dict[str, str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("validation")
    group.addoption("--validation-report", metavar="FILE", help="write what was measured to this Markdown file")
    group.addoption("--timing", action="store_true", help="let speeds that miss their bounds fail")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ROWS] = {}
    config.stash[DOCS] = {}


class Recorder:
    """Where a validation test puts what it measured. A row that did not pass fails the test once it has run to its end."""

    def __init__(self, item: pytest.Item) -> None:
        config, module = item.config, item.getparent(pytest.Module)
        assert module is not None
        name = module.obj.__name__.rpartition(".")[2]
        # Where this folder is not among the command line's, its hooks are registered after the configuration is made.
        config.stash.setdefault(DOCS, {})[name] = module.obj.__doc__ or ""
        self._rows = config.stash.setdefault(ROWS, {}).setdefault(name, [])
        self.made: list[Row] = []

    def __call__(self, check: str, *, system: str, bound: str, result: str, passed: bool | None) -> None:
        """Notes one check; `passed` is None for a measurement that nothing depends on."""
        verdict = "measured" if passed is None else "passed" if passed else "FAILED"
        self.add(Row(check, system, bound, result, verdict))

    def add(self, row: Row) -> None:
        self._rows.append(row)
        self.made.append(row)

    @property
    def failed(self) -> list[Row]:
        return [row for row in self.made if row.verdict == "FAILED"]


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Recorder:
    """Puts a row in the table of results."""
    return Recorder(request.node)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    result = yield
    recorder = getattr(item, "funcargs", {}).get("record")
    if isinstance(recorder, Recorder) and recorder.failed:
        pytest.fail(
            "\n".join(f"{row.check}, {row.system}: {row.result}; {row.bound}" for row in recorder.failed), False
        )
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A check that ended before it had anything to note is in the table too."""
    report = yield
    if "record" in getattr(item, "fixturenames", ()) and report.outcome != "passed" and call.excinfo is not None:
        recorder = getattr(item, "funcargs", {}).get("record") or Recorder(item)
        if not recorder.failed:
            reason = str(call.excinfo.value).partition("\n")[0][:200]
            what = (getattr(item, "obj", None).__doc__ or item.name).strip().partition("\n")[0]
            verdict = "not run" if report.skipped else "FAILED"
            recorder.add(Row(what, item.name.partition("[")[2].rstrip("]"), "", reason, verdict))
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    path = session.config.getoption("--validation-report", default=None)
    rows = session.config.stash.get(ROWS, {})
    if path and rows:
        Path(path).write_text(page(rows, session.config.stash[DOCS]), encoding="utf-8")
