"""Specs of simulations and sessions: what is taken, and how what is not is told."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from narupa_lobby.catalogue.documents import MAX_DEPTH, read_yaml
from narupa_lobby.catalogue.folder import MAX_FILE_BYTES, MAX_FILES, Catalogue, Contents
from narupa_lobby.catalogue.simulation import SimulationSpec
from narupa_lobby.messages import template_spec
from narupa_lobby.rules import Rules
from narupa_lobby.sessions import Spec, overlaid
from narupa_shared.testing.clock import FakeClock

PEPTIDE = """\
kind: simulation
name: peptide
title: Alanine chain
inputs:
  - demo:peptide
  - chain.xml?steps_per_frame=10
engine: {kind: openmm, platform: CPU, options: {temperature_k: 310.5, minimise: true}}
resources: {cpus: 1.5, memory: 2Gi}
defaults: {frame_interval_s: 0.05}
restart:
  max_restarts: 2
"""
PEPTIDE_TOML = """\
kind = "simulation"
name = "peptide"
inputs = [
  "demo:peptide",
]

[resources]
cpus = 2
memory = "512 MB"

[slurm]
time_limit = "1-02:30:00"
"""


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Contents]:
    """What a folder with these files offers."""

    def read(**files: str | bytes) -> Contents:
        for name, text in files.items():
            path = tmp_path / name.replace("__", ".")
            path.write_bytes(text.encode() if isinstance(text, str) else text)
        return Catalogue(tmp_path, FakeClock()).contents

    return read


Read = Callable[..., Contents]


def test_a_simulation_is_read_with_what_it_says_and_defaults_for_the_rest(read: Read) -> None:
    contents = read(peptide__yaml=PEPTIDE)
    assert contents.problems == ()
    spec = contents.simulations["peptide"]
    assert spec.title == "Alanine chain"
    assert spec.resources.memory == 2 * 1024**3
    assert spec.threads == 2
    assert spec.launcher is None
    assert (spec.restart.max_restarts, spec.restart.window_s) == (2, 600.0)
    assert spec.relative_inputs == ["chain.xml"]


def test_engine_options_are_added_to_each_input_that_does_not_say_them() -> None:
    spec = SimulationSpec.model_validate(
        {
            "kind": "simulation",
            "name": "a",
            "inputs": ["demo:peptide", "cu.xyz?calculator=lj&temperature_k=5"],
            "engine": {"calculator": "emt", "options": {"temperature_k": 300.0, "minimise": True, "x": "a&b=c d"}},
        }
    )
    more = "minimise=true&x=a%26b%3Dc%20d"
    assert spec.sources == [
        f"demo:peptide?calculator=emt&temperature_k=300.0&{more}",
        f"cu.xyz?calculator=lj&temperature_k=5&{more}",
    ]


def test_the_engine_is_named_to_inputs_that_are_files() -> None:
    given = {"kind": "simulation", "name": "a", "engine": {"kind": "elastic-network"}}
    inputs = [
        "1ubq.pdb",
        "2lzm.pdb?engine=openmm&x=1",
        "demo:peptide",
        "imd://127.0.0.1:8888?topology=a.pdb",
        "./b:c.pdb",
    ]
    spec = SimulationSpec.model_validate({**given, "inputs": inputs})
    assert spec.sources == [
        "1ubq.pdb?engine=elastic-network",
        "2lzm.pdb?engine=openmm&x=1",
        "demo:peptide",
        "imd://127.0.0.1:8888?topology=a.pdb",
        "./b:c.pdb?engine=elastic-network",
    ]


def test_paths_are_told_from_addresses_and_found_in_options() -> None:
    given = {"kind": "simulation", "name": "a"}
    inputs = [
        "imd://10.0.0.1:8888?topology=tops%2Fa.pdb",
        "trap:deep",
        "run.xtc?topology=run.pdb",
        "/b.xtc?topology=/b.pdb",
    ]
    spec = SimulationSpec.model_validate({**given, "inputs": inputs})
    assert spec.relative_inputs == ["tops/a.pdb", "run.xtc", "run.pdb"]
    spec = SimulationSpec.model_validate(
        {**given, "inputs": ["imd://h:1"], "engine": {"options": {"topology": "../a.pdb"}}}
    )
    assert "outside of the folder" in spec.unfit_for("docker")
    assert SimulationSpec.model_validate({**given, "inputs": ["imd://h:1"]}).unfit_for("kubernetes") == ""


def test_toml_says_the_same_as_yaml(read: Read) -> None:
    contents = read(peptide__toml=PEPTIDE_TOML)
    assert contents.problems == ()
    spec = contents.simulations["peptide"]
    assert (spec.resources.memory, spec.slurm.time_limit) == (512_000_000, "1-02:30:00")


def test_a_session_template_names_simulations_of_the_catalogue(read: Read) -> None:
    template = "kind: session\nname: workshop\njoin_role: viewer\nidle_timeout_s: 0\nsimulations: [peptide]\n"
    contents = read(peptide__yaml=PEPTIDE, workshop__yaml=template)
    assert contents.problems == ()
    assert contents.templates["workshop"].simulations == ("peptide",)

    contents = read(workshop__yaml=template.replace("[peptide]", "\n  - peptide\n  - penguin"))
    assert contents.templates == {}
    assert contents.problems == (
        "workshop.yaml, line 7: simulations[1] is 'penguin': no simulation of the catalogue; there are: peptide",
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (PEPTIDE.replace("cpus: 1.5", "cpus: many"), "line 8: resources.cpus is 'many': "),
        (PEPTIDE.replace("memory: 2Gi", "memory: 2 lots"), "line 8: resources.memory is '2 lots': needs a size such as"),
        (PEPTIDE.replace("max_restarts: 2", "max_restart: 2"), "line 11: restart.max_restart is not known; did you mean"),
        (PEPTIDE.replace("name: peptide", "name: Pep tide"), "line 2: name is 'Pep tide': "),
        (PEPTIDE.replace("name: peptide\n", ""), "line 1: name is missing"),
        (PEPTIDE.replace("- demo:peptide", '- "a\\nb"'), "line 5: inputs[0] is 'a\\nb': needs PATH"),
        (PEPTIDE.replace("frame_interval_s: 0.05", "frame_interval_s: .nan"), "line 9: defaults.frame_interval_s is nan"),
        (PEPTIDE.replace("kind: openmm", "kind: ase"), "line 7: engine is "),
        (PEPTIDE + "title: again\n", "line 12: title is there twice; first on line 3"),
        (PEPTIDE + "restart: [\n", "line 13: column 1: no YAML: "),
        (PEPTIDE.replace("kind: simulation", "kind: simulator"), "line 1: kind is 'simulator': needs to be 'simulation'"),
        (PEPTIDE.replace("kind: simulation\n", ""), "line 1: kind is missing"),
        (PEPTIDE + "launcher: kubernetes\n", "is relative; name the volume claim that holds it"),
        (PEPTIDE + "launcher: carrier-pigeon\n", "line 12: launcher is 'carrier-pigeon': "),
        (PEPTIDE + "environment: {NARUPA_LOBBY_HOST: x}\n", "line 12: environment is "),
        (PEPTIDE + "environment: {A: 'x\ty'}\n", "line 12: environment.A is 'x\\ty': needs text without"),
        (PEPTIDE + "docker: {image: 'a; rm -rf /'}\n", "line 12: docker.image is 'a; rm -rf /': "),
        (PEPTIDE + "slurm: {partition: '--wrap=id'}\n", "line 12: slurm.partition is '--wrap=id': "),
        (PEPTIDE + "--- \nkind: simulation\n", "line 12: a second document begins"),
        ("a: &x [1]\nb: *x\n", "line 1: anchors"),
        ("kind: !!python/object/apply:os.system ['id']\n", "line 1: kind has the tag"),
        ("[1, 2]", "line 1: needs to be a mapping"),
        ("", "line 1: needs to be a mapping"),
        ("kind: " + "9" * 5000, "line 1: kind is '999"),
        ("? [a]\n: b\n", "line 1: has a key that is no plain text"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_file_line_field_and_value(read: Read, text: str, problem: str) -> None:
    contents = read(good__yaml=PEPTIDE.replace("name: peptide", "name: good"), wrong__yaml=text)
    assert set(contents.simulations) == {"good"}
    assert len(contents.problems) == 1
    assert contents.problems[0].startswith("wrong.yaml, line ")
    assert problem in contents.problems[0]
    assert len(contents.problems[0]) < 600


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (PEPTIDE_TOML.replace('"512 MB"', "true"), "line 9: resources.memory is True"),
        (PEPTIDE_TOML.replace("cpus = 2", "cpu = 2"), "line 8: resources.cpu is not known; did you mean 'cpus'?"),
        (PEPTIDE_TOML.replace('"demo:peptide"', '""'), "line 3: inputs[0] is ''"),
        (PEPTIDE_TOML + "\n[slurm]\n", "no TOML: "),
        (PEPTIDE_TOML.replace("cpus = 2", "cpus = "), "line 8: column 8: no TOML: "),
        ("a = " + "[" * 20000, "line 1: takes values at most"),
        ("a = " + "[" * 30 + "]" * 30, "line 1: takes at most"),
    ],
)
def test_toml_is_told_with_its_line_too(read: Read, text: str, problem: str) -> None:
    contents = read(wrong__toml=text)
    assert contents.simulations == {}
    assert len(contents.problems) == 1
    assert problem in contents.problems[0]


def test_several_problems_of_one_file_are_all_told(read: Read) -> None:
    contents = read(wrong__yaml=PEPTIDE.replace("cpus: 1.5", "cpus: -1").replace("name: peptide", "name: 7"))
    assert [problem.split(":")[0] for problem in contents.problems] == ["wrong.yaml, line 2", "wrong.yaml, line 8"]


def test_a_name_belongs_to_the_first_file_and_the_other_is_told(read: Read) -> None:
    contents = read(a__yaml=PEPTIDE, b__toml=PEPTIDE_TOML)
    assert contents.simulations["peptide"].title == "Alanine chain"
    assert contents.problems == ("b.toml, line 2: name is 'peptide', which a.yaml has already; choose another",)


@pytest.mark.parametrize("role", ["viewer", "participant", "host", "none"])
def test_a_template_says_as_what_guests_come_in(read: Read, role: str) -> None:
    text = f"kind: session\nname: a\nguest_role: {role}\n"
    spec = template_spec(read(a__yaml=text).templates["a"], Rules())
    assert (spec.guest_role, overlaid(Spec(guest_role="viewer"), spec).guest_role) == (role, "viewer")
    assert template_spec(read(a__yaml="kind: session\nname: a\n").templates["a"], Rules()).guest_role is None
    (problem,) = read(a__yaml=text.replace(role, "boss")).problems
    assert problem.startswith("a.yaml, line 3: guest_role is 'boss'")


def test_secrets_of_templates_are_not_told(read: Read) -> None:
    contents = read(a__yaml="kind: session\nname: a\npassword: hunter2\njoin_code: [hush]\n")
    assert len(contents.problems) == 2
    assert "hunter2" not in str(contents.problems) and "hush" not in str(contents.problems)
    assert "password is ***" in contents.problems[0]


def test_hostile_texts_are_refused_fast(read: Read) -> None:
    laughs = "a0: &a0 [x,x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1},*a{n - 1}]\n" for n in range(1, 40))
    began = time.monotonic()
    contents = read(
        bomb__yaml=laughs,
        deep__yaml="a: " + "[" * 30_000,
        deep_block__yaml="".join(" " * n + "a:\n" for n in range(300)),
        wide__yaml="a: [" + "1," * 30_000 + "]",
        huge__yaml="#" * (MAX_FILE_BYTES + 1),
        binary__yaml=b"kind: simulation\nname: \xff\xfe",
        null__yaml=b"kind: simulation\nname: a\x00b\n",
        null__toml=b'kind = "a\x00b"\n',
    )
    assert time.monotonic() - began < 5
    assert contents.simulations == {}
    told = {problem.split(",")[0].split(":")[0] for problem in contents.problems}
    assert len(contents.problems) == len(told) == 8
    assert any("binary.yaml, line 2: is no UTF-8 text (byte 0xff)" in problem for problem in contents.problems)


def test_what_is_no_file_is_not_opened(read: Read, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "broken.yaml").symlink_to(tmp_path / "nowhere")
    (tmp_path / ".hidden.yaml").write_text("nonsense")
    (tmp_path / "notes.txt").write_text("nonsense")
    contents = read(good__yml=PEPTIDE)
    assert set(contents.simulations) == {"peptide"}
    assert contents.problems == tuple(f"{name}.yaml: is no file" for name in ("broken", "folder", "pipe"))


def test_one_file_too_many_is_told(tmp_path: Path) -> None:
    for number in range(MAX_FILES + 1):
        (tmp_path / f"{number:04}.yaml").write_text("kind: session\nname: n" + str(number))
    contents = Catalogue(tmp_path, FakeClock()).contents
    assert len(contents.templates) == MAX_FILES
    assert contents.problems == (f"{MAX_FILES:04}.yaml: is one file too many; takes {MAX_FILES}",)


def test_changes_are_seen_within_a_second_and_only_changed_files_are_read(tmp_path: Path) -> None:
    clock = FakeClock()
    catalogue = Catalogue(tmp_path, clock)
    assert catalogue.contents == Contents()
    (tmp_path / "a.yaml").write_text(PEPTIDE)
    assert catalogue.simulation("peptide") is None, "not looked at again within a second"
    clock.advance(1)
    first = catalogue.simulation("peptide")
    assert first is not None
    (tmp_path / "b.yaml").write_text("nonsense")
    clock.advance(1)
    assert catalogue.simulation("peptide") is first
    assert len(catalogue.contents.problems) == 1
    (tmp_path / "a.yaml").write_text(PEPTIDE.replace("Alanine chain", "Alanine"))
    (tmp_path / "b.yaml").unlink()
    clock.advance(1)
    changed = catalogue.simulation("peptide")
    assert changed is not None and changed.title == "Alanine"
    assert catalogue.contents.problems == ()


def test_a_folder_that_is_not_there_is_a_problem_and_none_is_not(tmp_path: Path) -> None:
    contents = Catalogue(tmp_path / "nowhere", FakeClock()).contents
    assert contents.simulations == {} and "cannot be read (No such file or directory)" in contents.problems[0]
    assert Catalogue(None, FakeClock()).contents == Contents()


def test_plain_words_stay_words() -> None:
    data = read_yaml("a: no\nb: 1:30:00\nc: 2026-01-01\nd: 010\ne: ~\nf: 1e-3\ng: -7\nh: .inf\ni: true\nj: <<\n").data
    assert data == {
        "a": "no", "b": "1:30:00", "c": "2026-01-01", "d": 10.0, "e": None, "f": 1e-3, "g": -7, "h": float("inf"),
        "i": True, "j": "<<",
    }  # fmt: skip


def test_values_are_taken_as_deep_as_is_said() -> None:
    depth = MAX_DEPTH - 1
    assert read_yaml("a: " + "[" * depth + "]" * depth).data
