"""What names a source, and what is said about names that name none."""

from __future__ import annotations

from pathlib import Path

import ase
import ase.build
import ase.io
import pytest

from narupa_shared.errors import InvalidArgumentError
from narupa_trajectory.sources.calculators import TERSOFF, make_calculator
from narupa_trajectory.sources.catalogue import SourceSpec, check_spec, open_source, source_name
from narupa_trajectory.sources.source import SourceDivergedError


@pytest.fixture
def copper(tmp_path: Path) -> Path:
    path = tmp_path / "cu.xyz"
    ase.io.write(path, ase.build.bulk("Cu", cubic=True))
    return path


def test_options_are_typed_and_calculator_options_passed_on(copper: Path) -> None:
    spec = SourceSpec.parse(f"{copper}?calculator=lj&temperature_k=500&calculator.sigma=2.3&calculator.smooth=true")
    assert spec.kind == "ase"
    assert spec.options["temperature_k"] == 500
    assert spec.options["calculator_options"] == {"sigma": 2.3, "smooth": True}
    assert source_name(spec) == "cu"
    check_spec(spec.text)


def test_kinds(copper: Path) -> None:
    assert SourceSpec.parse("demo:peptide?steps_per_frame=3").kind == "demo"
    assert SourceSpec.parse("somewhere/17-ala.xml").kind == "openmm"
    assert SourceSpec.parse(f"{copper}?calculator=emt").kind == "ase"
    assert SourceSpec.parse(f"{copper}?calculator=none").kind == "recording"
    assert source_name(SourceSpec.parse("demo:nanotube")) == "nanotube"


def test_a_still_is_shown_when_asked(copper: Path) -> None:
    source = open_source(SourceSpec.parse(f"{copper}?calculator=none"))
    assert source.info.frame_count == 1 and not source.advance(1)
    source.close()


def test_what_is_too_hot_for_its_option_has_blown_up(copper: Path) -> None:
    for text in (f"{copper}?calculator=emt", "demo:nanotube?minimise=false"):
        source = open_source(SourceSpec.parse(f"{text}&max_temperature_k=1"))
        with pytest.raises(SourceDivergedError, match="limit of 1 K"):
            source.snapshot()
        source.close()


def test_an_importable_calculator(copper: Path) -> None:
    source = open_source(SourceSpec.parse(f"{copper}?calculator=ase.calculators.emt:EMT&calculator.asap_cutoff=true"))
    assert source.advance(2)
    source.close()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("", r"add \?calculator=emt"),
        ("?calculator=emt&temprature_k=3", "temprature_k is unknown here; .*temperature_k"),
        ("?temperature_k=3", "add calculator=NAME"),
        ("?calculator=emt&temperature_k=hot", "temperature_k.*'hot'"),
        ("?calculator=emt&temperature_k=nan", "temperature_k.*nan"),
        ("?calculator=emt&max_temperature_k=0", "max_temperature_k.*'0'"),
        ("?calculator=emt&timestep_fs=0", "timestep_fs.*'0'"),
        ("?calculator=emt&dynamics=brownian", "dynamics.*brownian"),
        ("?calculator=emt&calculator=lj", "'calculator': is given twice"),
        ("?calculator", "name=value"),
        ("?calculator=emmt", "'emmt': is unknown; there are eam, emt"),
        ("?calculator=tblite", "'tblite': is not installed; install tblite"),
        ("?calculator=no.such.module:Thing", "No module named"),
        ("?calculator=os:nothing", "package.module:Callable"),
        ("?calculator=os:sep", "is not callable"),
        ("?calculator=emt&calculator.bogus=1", "has no options .*bogus.*asap_cutoff"),
        ("?calculator=tersoff", "calculator.file=FILE"),
    ],
)
def test_what_is_wrong_is_said(copper: Path, options: str, said: str) -> None:
    with pytest.raises(InvalidArgumentError, match=said):
        open_source(SourceSpec.parse(f"{copper}{options}"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "name a file"),
        ("nowhere.xyz?calculator=emt", "no such file"),
        ("nowhere.xml", "no such file"),
        ("nowhere:thing", "no such file, and no engine takes it; there are demo, imd, openmm, ase, recording"),
        ("imd://127.0.0.1:8888?topology=nowhere.pdb", "topology is 'nowhere.pdb': there is no such file"),
        ("imd://127.0.0.1:8888", "needs the option topology"),
        ("demo:unicorn", "is no demo; there are demo:nanotube, demo:peptide"),
        ("demo:nanotube?calculator=emt", "calculator is unknown here"),
        ("demo:nanotube?steps_per_frame=0", "steps_per_frame.*'0'"),
        ("nul\0l.xyz", "name a file"),
    ],
)
def test_cheap_checks_say_what_is_wrong(text: str, said: str) -> None:
    with pytest.raises(InvalidArgumentError, match=said):
        check_spec(text)


@pytest.mark.parametrize("content", [b"", b"\x00\xff garbage \x80", b"3\n\nCu 0 0\n"])
def test_unreadable_files_are_refused(tmp_path: Path, content: bytes) -> None:
    for name in ("broken.xyz", "broken.pdb", "broken.weird", "broken.traj", "broken.dcd"):
        (tmp_path / name).write_bytes(content)
        for options in ("", "?calculator=emt"):
            with pytest.raises(InvalidArgumentError, match=r"broken|still|calculator"):
                open_source(SourceSpec.parse(f"{tmp_path / name}{options}"))


def test_elements_that_the_calculator_does_not_know(tmp_path: Path) -> None:
    ase.io.write(tmp_path / "salt.xyz", ase.build.bulk("NaCl", "rocksalt", a=5.6))
    with pytest.raises(InvalidArgumentError, match=r"EMT.*cannot compute"):
        open_source(SourceSpec.parse(f"{tmp_path / 'salt.xyz'}?calculator=emt"))


@pytest.mark.parametrize(("symbol", "lattice", "cohesion"), [("Si", 5.432, 4.63), ("C", 3.566, 7.37)])
def test_tersoff_gives_the_published_cohesive_energy(symbol: str, lattice: float, cohesion: float) -> None:
    """Tersoff, Phys. Rev. B 39, 5566 (1989): diamond-structure silicon and carbon, eV per atom."""
    atoms = ase.build.bulk(symbol, "diamond", a=lattice).repeat(2)
    atoms.calc = make_calculator("tersoff", {}, atoms)
    assert symbol in TERSOFF
    assert -atoms.get_potential_energy() / len(atoms) == pytest.approx(cohesion, abs=0.02)
