"""ASE calculators by name: ASE's own, those of well-known packages, and any importable one."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, Final

import ase
from ase.calculators.calculator import get_calculator_class
from ase.calculators.names import names as ase_names

from narupa_shared.errors import InvalidArgumentError, shown

# Name -> where it is, and what to install for it.
ELSEWHERE: Final = {
    "tblite": ("tblite.ase:TBLite", "tblite"),
    "xtb": ("xtb.ase.calculator:XTB", "xtb"),
    "mace_mp": ("mace.calculators:mace_mp", "mace-torch"),
    "mace_off": ("mace.calculators:mace_off", "mace-torch"),
    "chgnet": ("chgnet.model:CHGNetCalculator", "chgnet"),
    "mattersim": ("mattersim.forcefield:MatterSimCalculator", "mattersim"),
}
# What needs nothing but ASE; the others in its list run programs of their own.
SELF_CONTAINED: Final = ("eam", "emt", "ff", "lj", "morse", "tersoff", "tip3p", "tip4p")

# Those that would silently accept an option that they do not have.
TAKES_ANYTHING: Final = ("emt", "lj", "morse")

# Lennard-Jones of the noble gases: epsilon (eV), sigma (A). Ashcroft and Mermin, Solid State Physics, table 20.2.
NOBLE_GASES: Final = {"Ne": (0.0031, 2.74), "Ar": (0.0104, 3.40), "Kr": (0.0140, 3.65), "Xe": (0.0200, 3.98)}


# c, d, h, n, beta, lambda2, B, R, S, lambda1, A: Tersoff, Phys. Rev. B 39, 5566 (1989), table I.
TERSOFF: Final = {
    "C": (3.8049e4, 4.3484, -0.57058, 0.72751, 1.5724e-7, 2.2119, 346.74, 1.8, 2.1, 3.4879, 1393.6),
    "Si": (1.0039e5, 16.217, -0.59825, 0.78734, 1.1e-6, 1.7322, 471.18, 2.7, 3.0, 2.4799, 1830.8),
}


def tersoff(symbol: str) -> Any:
    """ASE's parameters for one element; its cutoff from R to S is written there as a centre and a half-width."""
    from ase.calculators.tersoff import TersoffParameters  # brings most of SciPy with it

    c, d, h, n, beta, lambda2, b, start, end, lambda1, a = TERSOFF[symbol]
    centre, half = (start + end) / 2, (end - start) / 2
    return TersoffParameters(3.0, 1.0, 0.0, c, d, h, n, beta, lambda2, b, centre, half, lambda1, a)


def calculator_named(name: str) -> Callable[..., Any]:
    """What makes the calculator `name`: an ASE name, or `package.module:Callable`.

    Raises:
        InvalidArgumentError: there is none, or it is not installed.
    """
    if ":" in name:
        return imported(name, f"a calculator is imported as package.module:Callable; {known()}")
    if name in ELSEWHERE:
        where, package = ELSEWHERE[name]
        return imported(where, f"is not installed; install {package}", name)
    if name not in ase_names:
        raise InvalidArgumentError("calculator", name, f"is unknown; {known()}")
    try:
        made: Callable[..., Any] = get_calculator_class(name)
    except Exception as error:
        raise InvalidArgumentError("calculator", name, f"is not installed ({error}); {known()}") from error
    return made


def make_calculator(name: str, options: Mapping[str, Any], atoms: ase.Atoms) -> Any:
    """The calculator `name` with these keyword options, for these atoms.

    Raises:
        InvalidArgumentError: there is none, it is not installed, or it refuses its options.
    """
    make = calculator_named(name)
    symbols = set(atoms.get_chemical_symbols())
    arguments = dict(options)
    try:
        if name == "tersoff":
            if "file" in arguments:
                from ase.calculators.tersoff import Tersoff

                return Tersoff.from_lammps(arguments.pop("file"), **arguments)
            if "parameters" not in arguments:
                (symbol,) = symbols if len(symbols) == 1 else ("",)
                if symbol not in TERSOFF:
                    reason = "has parameters for pure C and Si; give others as calculator.file=FILE (LAMMPS format)"
                    raise InvalidArgumentError("calculator", name, reason)
                arguments["parameters"] = {(symbol,) * 3: tersoff(symbol)}
        elif name == "lj" and not arguments and len(symbols) == 1 and symbols <= NOBLE_GASES.keys():
            epsilon, sigma = NOBLE_GASES[symbols.pop()]
            arguments = {"epsilon": epsilon, "sigma": sigma, "rc": 3 * sigma, "smooth": True}
        defaults = getattr(make, "default_parameters", {})
        if name in TAKES_ANYTHING and (unknown := sorted(arguments.keys() - defaults.keys())):
            raise InvalidArgumentError("calculator", name, f"has no options {unknown}; it has {sorted(defaults)}")
        return make(**arguments)
    except InvalidArgumentError:
        raise
    except Exception as error:  # whatever a calculator raises on its options
        detail = shown(f"{type(error).__name__}: {error}", 200)
        raise InvalidArgumentError(
            "calculator", name, f"cannot be made with the options {dict(options)} ({detail})"
        ) from error


def imported(where: str, hint: str, name: str = "") -> Callable[..., Any]:
    module, _, attribute = where.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # an import runs the code of others
        raise InvalidArgumentError("calculator", name or where, f"{hint} ({type(error).__name__}: {error})") from error
    if not callable(found):
        raise InvalidArgumentError("calculator", where, "is not callable")
    made: Callable[..., Any] = found
    return made


def known() -> str:
    """The calculators there are, for messages."""
    programs = sorted(set(ase_names) - set(SELF_CONTAINED))
    return (
        f"there are {', '.join(SELF_CONTAINED)}; with a package of their own {', '.join(ELSEWHERE)}; "
        f"with a program of their own {', '.join(programs)}; or package.module:Callable"
    )
