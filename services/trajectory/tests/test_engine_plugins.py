"""Engines as plug-ins: which engine an input gets, and that a bad plug-in is named and hurts nobody else."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from narupa_shared.errors import InvalidArgumentError
from narupa_trajectory.sources import catalogue
from narupa_trajectory.sources.built_in import BUILT_IN
from narupa_trajectory.sources.catalogue import SourceSpec, check_spec, open_source, source_name
from narupa_trajectory.sources.engines import GROUP, Engines

TRAP = """
from narupa_trajectory.sources.options import Options, Steps
from narupa_shared.errors import InvalidArgumentError

class TrapOptions(Options):
    stiffness: float = 2.0
    steps_per_frame: Steps = 3
    key: str = "any"
    files: tuple[str, ...] = ()

class Trap:
    name = "NAME"
    options = TrapOptions
    def claims(self, target, given):
        return target.startswith("trap:")
    def check(self, spec):
        if spec.target == "trap:shut":
            raise InvalidArgumentError("input", spec.text, "is shut")
    def open(self, spec, name):
        return (name, dict(spec.options))

ENGINE = Trap()
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Engines]]:
    """Makes packages of one module each with an entry point, named NAME=CODE, and them the only plug-ins there are."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    modules: list[str] = []

    def installing(*more: EntryPoint, **codes: str) -> Engines:
        entries = list(more)
        for name, code in codes.items():
            module = f"plugin_{name}_{abs(hash(str(tmp_path)))}"
            (folder / f"{module}.py").write_text(textwrap.dedent(code).replace("NAME", name))
            modules.append(module)
            entries.append(EntryPoint(name, f"{module}:ENGINE", GROUP))
        found = Engines(BUILT_IN, lambda: entries)
        monkeypatch.setattr(catalogue, "engines", lambda: found)
        monkeypatch.setattr("narupa_trajectory.sources.built_in.engines", lambda: found)
        return found

    yield installing
    for module in modules:
        sys.modules.pop(module, None)


def test_a_plug_in_runs_what_it_claims(install: Callable[..., Engines]) -> None:
    install(trap=TRAP)
    spec = SourceSpec.parse("trap:deep?stiffness=4")
    assert (spec.kind, source_name(spec)) == ("trap", "deep")
    assert spec.options == {"stiffness": 4.0, "steps_per_frame": 3, "key": "any", "files": []}
    assert json.loads(json.dumps(spec.options)) == spec.options, "they travel to the engine process as JSON"
    assert open_source(spec) == ("deep", spec.options)


def test_a_plug_in_may_register_a_class(install: Callable[..., Engines]) -> None:
    install(trap=TRAP.replace("ENGINE = Trap()", "ENGINE = Trap"))
    assert open_source(SourceSpec.parse("trap:deep?stiffness=1"))[0] == "deep"  # type: ignore[index]


def test_an_input_can_name_its_engine(install: Callable[..., Engines], tmp_path: Path) -> None:
    install(trap=TRAP)
    (tmp_path / "chain.pdb").write_text("REMARK\n")
    assert SourceSpec.parse(f"{tmp_path / 'chain.pdb'}").kind == "recording"
    spec = SourceSpec.parse(f"{tmp_path / 'chain.pdb'}?engine=trap&stiffness=1")
    assert (spec.kind, source_name(spec), spec.options["stiffness"]) == ("trap", "chain", 1.0)
    assert SourceSpec.parse("chain.xml?engine=recording").kind == "recording"
    assert SourceSpec.parse("chain.input?engine=openmm").kind == "openmm"
    assert SourceSpec.parse("chain.pdb?engine=ase&calculator=emt").kind == "ase"
    with pytest.raises(InvalidArgumentError, match="'engine': is given twice"):
        SourceSpec.parse("a.pdb?engine=trap&engine=ase")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("trap:a?stiffness=soft", r"stiffness of trap:a\?stiffness=soft is 'soft'"),
        ("trap:a?stifness=2", "stifness is unknown here; this source has files, key, steps_per_frame, stiffness"),
        ("trap:a?steps_per_frame=0", "steps_per_frame.*'0'"),
        ("trap:shut", "is shut"),
        ("trap:a?engine=trp", "engine is 'trp': is unknown; there are demo, imd, openmm, ase, recording, trap"),
        ("trap:a?engine=", "engine is '': is unknown"),
    ],
)
def test_what_is_wrong_with_an_input_is_said(install: Callable[..., Engines], text: str, said: str) -> None:
    install(trap=TRAP)
    with pytest.raises(InvalidArgumentError, match=said):
        check_spec(text)


def test_an_option_that_is_missing_is_asked_for(install: Callable[..., Engines]) -> None:
    install(trap=TRAP.replace('key: str = "any"', "key: str"))
    with pytest.raises(InvalidArgumentError, match="input is 'trap:a': needs the option key; add key="):
        SourceSpec.parse("trap:a")
    with pytest.raises(InvalidArgumentError, match="the option kye is unknown here; this source has files, key"):
        SourceSpec.parse("trap:a?kye=1")


def test_no_plug_in_is_loaded_for_what_a_built_in_claims(install: Callable[..., Engines]) -> None:
    found = install(bomb="raise SystemExit('loaded')")
    for text in ("demo:nanotube", "a.xml", "a.xyz?calculator=emt", "run.xtc?topology=a.pdb", "a.foo?engine=recording"):
        SourceSpec.parse(text)
    assert found.complaints() == ""
    SourceSpec.parse("a.foo")
    assert "bomb" in found.complaints()


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import no_such_module", r"ModuleNotFoundError: No module named"),
        ("raise SystemExit(3)", "cannot be loaded .SystemExit: 3"),
        ("def broken(", "SyntaxError"),
        ("ENGIN = 1", "AttributeError.*ENGINE"),
        ("ENGINE = 3", "calls itself None; its name needs to be that of its entry point"),
        (TRAP.replace('name = "NAME"', 'name = "openmm"'), "calls itself 'openmm'"),
        (TRAP.replace("options = TrapOptions", "options = dict"), "has no options"),
        (TRAP.replace("def check", "def chek"), "lacks the method check"),
    ],
)
def test_a_broken_plug_in_is_named_and_hurts_nobody_else(
    install: Callable[..., Engines], code: str, said: str, tmp_path: Path
) -> None:
    found = install(broken=code, trap=TRAP)
    assert SourceSpec.parse("trap:deep").kind == "trap"
    assert SourceSpec.parse("demo:nanotube").kind == "demo"
    with pytest.raises(InvalidArgumentError, match=f"engine is 'broken': is a plug-in of .*{said}.*mend or remove"):
        SourceSpec.parse("a.b?engine=broken")
    with pytest.raises(
        InvalidArgumentError,
        match=f"no such file, and no engine takes it; .*; the engine broken is a plug-in of .*{said}",
    ):
        check_spec("own:thing")
    assert "broken" in found.names()


def test_a_scheme_that_is_nobodys(
    install: Callable[..., Engines], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(trap=TRAP)
    with pytest.raises(
        InvalidArgumentError, match="no engine takes it; there are demo, imd, openmm, ase, recording, trap"
    ):
        SourceSpec.parse("snare:deep?stiffness=3")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "snare:deep").touch()
    assert SourceSpec.parse("snare:deep").kind == "recording"


def test_a_plug_in_that_fails_on_an_input_is_named(install: Callable[..., Engines]) -> None:
    failing = "def check(self, spec):\n        1 / 0"
    shy = TRAP.replace('return target.startswith("trap:")', "raise KeyError(target)")
    install(
        trap=TRAP.replace("def check(self, spec):", failing + "\n    def unused(self, spec):"),
        shy=shy,
    )
    with pytest.raises(InvalidArgumentError, match=r"the engine trap failed on it \(ZeroDivisionError: division"):
        check_spec("trap:deep")
    with pytest.raises(InvalidArgumentError, match=r"the engine shy cannot tell what it claims \(KeyError"):
        check_spec("own:thing")


def test_a_plug_in_replaces_no_built_in(install: Callable[..., Engines]) -> None:
    found = install(openmm=TRAP)
    assert SourceSpec.parse("a.xml?engine=openmm").options.keys() == {"steps_per_frame"}
    assert found.names() == ["demo", "imd", "openmm", "ase", "recording"]
    assert "openmm" in found.complaints() and "has the name of a built-in engine" in found.complaints()


def test_two_plug_ins_that_want_the_same(install: Callable[..., Engines]) -> None:
    install(snare=TRAP, trap=TRAP)
    with pytest.raises(InvalidArgumentError, match="claimed by several engines; add engine=snare or engine=trap"):
        SourceSpec.parse("trap:deep")
    assert SourceSpec.parse("trap:deep?engine=snare").kind == "snare"


def test_two_packages_that_offer_the_same_name(install: Callable[..., Engines]) -> None:
    twice = [EntryPoint("trap", value, GROUP) for value in ("one:ENGINE", "other:ENGINE", "one:ENGINE")]
    install(*twice)
    with pytest.raises(InvalidArgumentError, match="'trap': is offered by one:ENGINE and other:ENGINE; remove one"):
        SourceSpec.parse("trap:deep?engine=trap")


def test_an_imd_address_is_no_file() -> None:
    # Its options and checks are those of the engine for programs that speak IMD; here, only that no file is looked for.
    for engine in BUILT_IN:
        assert engine.claims("imd://127.0.0.1:8888", {}) is (engine.name == "imd")
    assert source_name(SourceSpec("imd://127.0.0.1:8888", "imd://127.0.0.1:8888", "imd", {})) == "127.0.0.1:8888"
    assert source_name(SourceSpec("imd://[::1]:88", "imd://[::1]:88", "imd", {})) == "[::1]:88"


def test_naming_a_source_is_cheap() -> None:
    """Neither an engine nor what reads files is loaded for it, nor any plug-in looked for."""
    code = """
        import sys
        from narupa_trajectory.sources.catalogue import SourceSpec
        from narupa_trajectory.sources.engines import engines
        for text in ("demo:nanotube", "a.xml", "a.xyz?calculator=emt", "run.xtc?topology=a.pdb", "imd://h:1?topology=a.pdb"):
            SourceSpec.parse(text)
        print(*sorted({"openmm", "ase", "MDAnalysis"} & set(sys.modules)), *({"_found"} & set(vars(engines()))))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
