"""Molecules: terms in torch against OpenMM, the adapters to OpenMM and ASE, alanine dipeptide."""

import math
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

import targets
from diffsampler import InputError, Sampler
from diffsampler.molecules import MolecularForceField, OpenMMEnergy, angle, dihedral, distance
from diffsampler.networks import FourierMLP
from diffsampler.spaces import Particles
from targets import AlanineDipeptide, ASETarget, ForceFieldTarget, OpenMMTarget

PDB = str(Path(targets.__file__).parent / "data" / "alanine_dipeptide.pdb")
FIELD = ["amber96.xml", "amber96_obc.xml"]
GAS_CONSTANT = 8.31446261815324e-3


@pytest.fixture
def openmm() -> ModuleType:
    return pytest.importorskip("openmm")


@pytest.fixture
def app(openmm: ModuleType) -> ModuleType:
    from openmm import app

    return app


@pytest.fixture
def ase() -> ModuleType:
    return pytest.importorskip("ase")


def near(positions: Tensor, width: float, n: int = 50) -> Tensor:
    """Configurations around one, float64, with shape (n, D)."""
    noise = torch.randn(n, positions.numel(), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return positions.flatten() + width * noise


# ---- without either program


def test_distance_angle_and_dihedral_by_hand() -> None:
    x = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 2.0], [0.0, 3.0, 2.0], [-1.0, 0.0, 2.0]])
    i, j, k, l, m = torch.arange(5)
    assert distance(x, i, k) == pytest.approx(math.sqrt(5))
    assert angle(x, i, j, k) == pytest.approx(math.pi / 2)
    # Along the bond, upwards, y is clockwise of x.
    assert dihedral(x, i, j, k, l) == pytest.approx(math.pi / 2)
    assert dihedral(x, l, k, j, i) == pytest.approx(math.pi / 2)
    assert abs(dihedral(x, i, j, k, m)) == pytest.approx(math.pi)


@pytest.mark.parametrize("module", ["openmm", "ase"])
def test_a_program_that_is_not_there_is_named(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    made = {
        "openmm": [AlanineDipeptide, lambda: OpenMMTarget(PDB, FIELD), lambda: ForceFieldTarget(PDB, FIELD)],
        "ase": [lambda: ASETarget("cluster.xyz")],
    }
    for make in made[module]:
        with pytest.raises(InputError, match=rf"needs {module}: pip install 'diffsampler\[molecules\]"):
            make()


def test_what_a_molecule_is_made_of_is_named() -> None:
    for options in ({}, {"pdb": PDB}, {"pdb": PDB, "forcefield": FIELD, "positions": [[0.0] * 3]}, {"system": 1}):
        for kind in (OpenMMTarget, ForceFieldTarget):
            with pytest.raises(InputError, match=f"{kind.__name__} needs pdb and forcefield"):
                kind(**options)


# ---- terms in torch


@pytest.mark.adapters
@pytest.mark.parametrize("width", [0.003, 0.03, 0.3])
def test_terms_are_those_of_openmm(openmm: ModuleType, width: float) -> None:
    target = AlanineDipeptide()
    x = near(torch.from_numpy(target.molecule.positions), width).requires_grad_()
    energy = target.force_field(x)
    (gradient,) = torch.autograd.grad(energy.sum(), x)
    expected = OpenMMEnergy(target.molecule.system).evaluate(x.detach().numpy(), with_forces=True)
    torch.testing.assert_close(energy.detach(), torch.from_numpy(expected.energy), rtol=1e-9, atol=1e-9)
    size = torch.from_numpy(expected.forces).abs().amax(-1, keepdim=True)
    assert ((gradient + torch.from_numpy(expected.forces)).abs() <= 1e-9 * size).all()
    narrow = target.force_field(x.detach().float())
    torch.testing.assert_close(narrow.double(), energy.detach(), rtol=1e-5, atol=1e-2)


def hand_made(openmm: ModuleType) -> "openmm.System":  # noqa: F821
    """Five particles with every term, unlike in all parameters; exceptions that weaken, replace and end pairs."""
    system = openmm.System()
    for _ in range(5):
        system.addParticle(1.0)
    bonds, angles, torsions = openmm.HarmonicBondForce(), openmm.HarmonicAngleForce(), openmm.PeriodicTorsionForce()
    for i in range(4):
        bonds.addBond(i, i + 1, 0.1 + 0.02 * i, 1000.0 * (i + 1))
    for i in range(3):
        angles.addAngle(i, i + 1, i + 2, 1.5 + 0.2 * i, 40.0 * (i + 1))
    for i in range(2):
        torsions.addTorsion(i, i + 1, i + 2, i + 3, i + 1, 0.3 + i, 5.0 * (i + 1))
    nonbonded, born = openmm.NonbondedForce(), openmm.GBSAOBCForce()
    for i in range(5):
        charge = 0.5 * (-1) ** i + 0.1 * i
        nonbonded.addParticle(charge, 0.05 + 0.02 * i, 0.1 * i)
        born.addParticle(charge, 0.12 + 0.02 * i, 0.7 + 0.05 * i)
    for i, j, values in ((0, 1, (0, 0.1, 0)), (3, 1, (0.2, 0.07, 0.3)), (0, 3, (0.0, 0.06, 0.2))):
        nonbonded.addException(i, j, *values)
    born.setSoluteDielectric(2.0)
    born.setSolventDielectric(40.0)
    born.setSurfaceAreaEnergy(3.0)
    for force in (bonds, angles, torsions, nonbonded, born, openmm.CMMotionRemover()):
        system.addForce(force)
    return system


@pytest.mark.adapters
def test_terms_of_a_system_by_hand(openmm: ModuleType) -> None:
    system = hand_made(openmm)
    x = 0.15 * torch.randn(200, 15, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = OpenMMEnergy(system).evaluate(x.numpy(), with_forces=False).energy
    field = MolecularForceField(system)
    torch.testing.assert_close(field(x), torch.from_numpy(expected), rtol=1e-9, atol=1e-9)
    assert field(x.reshape(2, 100, 15)).shape == (2, 100) and not field.state_dict()


@pytest.mark.adapters
def test_forces_that_torch_does_not_know_are_named(openmm: ModuleType) -> None:
    system = hand_made(openmm)
    system.addForce(openmm.CustomExternalForce("x^2"))
    with pytest.raises(InputError, match="CustomExternalForce is not known in torch"):
        MolecularForceField(system)
    for force in ("NonbondedForce", "GBSAOBCForce"):
        system = hand_made(openmm)
        (found,) = (each for each in system.getForces() if each.getName() == force)
        found.setNonbondedMethod(found.CutoffNonPeriodic)
        with pytest.raises(InputError, match=f"{force} must have nonbondedMethod=NoCutoff"):
            MolecularForceField(system)


# ---- OpenMM


@pytest.mark.adapters
@pytest.mark.parametrize("workers", [0, 2])
def test_openmm_and_torch_are_one_target(openmm: ModuleType, workers: int) -> None:
    by_openmm = OpenMMTarget(PDB, FIELD, temperature=450.0, workers=workers)
    by_torch = ForceFieldTarget(PDB, FIELD, temperature=450.0)
    x = near(torch.from_numpy(by_torch.molecule.positions), 0.01, 20)
    for one, other in zip(by_openmm.log_prob_and_score(x), by_torch.log_prob_and_score(x), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-6)
    assert by_openmm.dim == by_torch.dim == 66
    energy = by_torch.force_field(x)
    torch.testing.assert_close(by_torch.log_prob(x), -energy / (GAS_CONSTANT * 450.0))
    x[3, 5] = math.nan
    assert by_openmm.log_prob(x).isnan().nonzero().tolist() == [[3]]


@pytest.mark.adapters
def test_a_system_with_positions(openmm: ModuleType, app: ModuleType) -> None:
    structure = app.PDBFile(PDB)
    system = app.ForceField(*FIELD).createSystem(structure.topology)
    positions = structure.getPositions(asNumpy=True)
    for given in (structure.positions, positions, positions._value, positions._value.tolist()):
        target = OpenMMTarget(system=system, positions=given)
        assert isinstance(target.space, Particles) and target.space.isotropic and not target.space.identical
        assert abs(target.molecule.positions - positions._value).max() == 0
    with pytest.raises(InputError, match=r"positions must be finite, with shape \(22, 3\)"):
        OpenMMTarget(system=system, positions=positions._value[:5])
    with pytest.raises(InputError, match="positions must be n rows"):
        OpenMMTarget(system=system, positions="all")


@pytest.mark.adapters
def test_space_is_what_leaves_the_energy_as_it_is(openmm: ModuleType) -> None:
    positions = 0.35 * torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=torch.float64).numpy()

    def space(term: str | None, identical: bool = True) -> Particles | None:
        system, pairs = openmm.System(), openmm.NonbondedForce()
        for i in range(4):
            system.addParticle(1.0)
            pairs.addParticle(0.0, 0.34, 1.0 if identical else 1.0 + i)
        system.addForce(pairs)
        if term is not None:
            force = openmm.CustomCompoundBondForce(4, term) if "x1" in term else openmm.CustomExternalForce(term)
            if "x1" in term:
                force.addBond(range(4), [])
            else:
                for i in range(4):
                    force.addParticle(i, [])
            system.addForce(force)
        return OpenMMTarget(system=system, positions=positions).space

    found = space(None)
    assert found.identical and found.isotropic
    assert not space(None, identical=False).identical
    assert space("100 * (x^2 + y^2 + z^2)") is None
    assert not space("1000 * (x1 - x2)^2").isotropic
    assert not space("20 * sin(dihedral(p1, p2, p3, p4)) + 0 * x1").isotropic  # which knows left from right


@pytest.mark.adapters
def test_systems_that_are_no_density_are_refused(openmm: ModuleType, app: ModuleType, tmp_path: Path) -> None:
    structure = app.PDBFile(PDB)
    field = app.ForceField(*FIELD)
    for options, words in (({"constraints": app.HBonds}, "12 constraints"), ({"box": True}, "periodic box")):
        system = field.createSystem(structure.topology, constraints=options.get("constraints"))
        if "box" in options:
            system.addForce(force := openmm.HarmonicBondForce())
            force.setUsesPeriodicBoundaryConditions(True)
        with pytest.raises(InputError, match=words):
            OpenMMTarget(system=system, positions=structure.positions)
    (tmp_path / "no.pdb").write_text("nothing\n")
    for pdb, files, words in (
        ("missing.pdb", FIELD, "missing.pdb"),
        (str(tmp_path / "no.pdb"), FIELD, "no.pdb"),
        (PDB, ["amber.xml"], "amber.xml"),
        (PDB, ["tip3p.xml"], "No template found for residue 0 .ACE."),
    ):
        with pytest.raises(InputError, match=words):
            OpenMMTarget(pdb, files)
    with pytest.raises(InputError, match="temperature must be positive"):
        OpenMMTarget(PDB, FIELD, temperature=-300.0)


@pytest.mark.adapters
def test_a_sampler_of_a_molecule(openmm: ModuleType) -> None:
    sampler = Sampler(OpenMMTarget(PDB, FIELD), control=FourierMLP, flow=None, grid=2)
    assert sampler.sample(3, seed=0).shape == (3, 66)


# ---- alanine dipeptide


@pytest.mark.adapters
def test_alanine_dipeptide_is_l_and_at_a_minimum(openmm: ModuleType) -> None:
    target = AlanineDipeptide()
    x = torch.from_numpy(target.molecule.positions).flatten()
    assert (target.dim, target.space.identical, target.space.isotropic) == (66, False, True)
    # Positions of a PDB file are rounded to 1e-4 nm, bonds have 3e5 kJ / mol / nm^2: forces of tens of kJ / mol / nm.
    assert target.score(x).abs().max() < 1e5 * 1e-3 / target.temperature
    phi, psi, chirality = (target.observables[name](x) for name in ("phi", "psi", "chirality"))
    # Of the minimised structure, beta: OpenMM says -65.6 and 146.0 degrees.
    assert math.degrees(phi) == pytest.approx(-65.6, abs=0.1) and math.degrees(psi) == pytest.approx(146.0, abs=0.1)
    assert chirality == 1
    mirrored = (target.molecule.positions * [1, 1, -1]).flatten()
    mirrored = torch.from_numpy(mirrored)
    assert target.observables["chirality"](mirrored) == 0
    assert float(target.observables["phi"](mirrored)) == pytest.approx(-float(phi))
    assert float(target.log_prob(mirrored)) == pytest.approx(float(target.log_prob(x)), rel=1e-9)
    both = torch.stack([x, mirrored, x, x])
    assert target.diagnostics(both) == {"fraction_of_L": 0.75}
    assert target.observables["phi"](both).shape == (4,)


@pytest.mark.adapters
def test_atoms_bonds_and_dihedral_angles_are_those_of_openmm(openmm: ModuleType) -> None:
    target = AlanineDipeptide()
    x = near(torch.from_numpy(target.molecule.positions), 0.02, 20)
    system, force = openmm.System(), openmm.CustomTorsionForce("theta")
    for _ in range(22):
        system.addParticle(1.0)
    force.addTorsion(*(target.molecule.atom(name) for name in ("ACE1.C", "ALA2.N", "ALA2.CA", "ALA2.C")), [])
    system.addForce(force)
    expected = OpenMMEnergy(system).evaluate(x.numpy(), with_forces=False).energy
    torch.testing.assert_close(target.observables["phi"](x), torch.from_numpy(expected), rtol=1e-6, atol=1e-6)
    bonded = [pair for pair in target.molecule.bonds if target.molecule.atom("ALA2.CA") in pair]
    names = {target.molecule.names[atom] for pair in bonded for atom in pair}
    assert names == {"ALA2.CA", "ALA2.N", "ALA2.HA", "ALA2.CB", "ALA2.C"} and len(target.molecule.bonds) == 21
    assert "".join(target.molecule.elements) == "HCHHCONHCHCHHHCONHCHHH"
    with pytest.raises(InputError, match=r"no atom 'CA'; there are ACE1\.H1, ACE1\.CH3"):
        target.molecule.atom("CA")


@pytest.mark.adapters
def test_replica_exchange_goes_on_and_is_compared(
    openmm: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from examples import replica_exchange

    monkeypatch.setattr(replica_exchange, "NUM_STEPS", 20)
    output, draws = tmp_path / "runs" / "chain.pt", tmp_path / "draws.npz"
    replica_exchange.main(["--sweeps=20", f"--output={output}"])
    before = torch.load(output)
    tried, accepted = before["state"]["swaps"].sum(1)
    assert 40 <= tried <= 60 and 0 < accepted < tried and before["energy"].shape == (20, 6)
    x = before["x"].double()
    target = AlanineDipeptide()
    for name in ("phi", "psi"):
        expected = target.observables[name](x).cos().float()
        torch.testing.assert_close(before[name][:, 0].cos(), expected, atol=1e-4, rtol=0)
    energy = -target.log_prob(x) * target.temperature
    # Positions in float32: forces of 1e3 kJ / mol / nm times 1e-7 nm, over 66 of them.
    torch.testing.assert_close(energy.float(), before["energy"][:, 0], atol=0.02, rtol=0)
    np.savez(draws, x=x.numpy(), log_weight=np.zeros(20))
    replica_exchange.main(["--sweeps=30", f"--output={output}", f"--compare={draws}"])
    after = torch.load(output)
    assert len(after["energy"]) == 30 and torch.equal(after["x"][:20], before["x"])
    printed = capsys.readouterr().out
    assert "configurations of D: 0 0 0 0 0 0" in printed and "20 draws, ESS 20; 60 bins" in printed


@pytest.mark.adapters
def test_replicas_swap_by_the_metropolis_rule(openmm: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    from examples import replica_exchange

    replicas = replica_exchange.ReplicaExchange(AlanineDipeptide(), seed=0)

    def kinetic() -> list[float]:
        return [walker.getState(getEnergy=True).getKineticEnergy()._value for walker in replicas.walkers]

    # Alike they always swap; without steps all that changes is the speed, to that of the new temperature.
    monkeypatch.setattr(replica_exchange, "NUM_STEPS", 0)
    replicas.betas = [1.0] * 6
    for _ in range(4):
        then, before = list(replicas.walker_at), kinetic()
        replicas.sweep()
        temperatures = zip(replica_exchange.TEMPERATURES, then, replicas.walker_at, strict=True)
        ratio = [1.0] * 6
        for temperature, was, now in temperatures:
            ratio[was] /= temperature
            ratio[now] *= temperature
        assert kinetic() == pytest.approx([energy * factor for energy, factor in zip(before, ratio, strict=True)])
    tried, accepted = replicas.swaps.sum(1)
    assert tried == accepted >= 8
    monkeypatch.setattr(replica_exchange, "NUM_STEPS", 1)
    # So cold on one side of a pair that the lower energy belongs there: it moves there, and never back.
    outcomes = []
    for cold in (0, 1, 0, 1):
        replicas.betas = [1e6 * (k // 3 == cold) for k in range(6)]
        for _ in range(10):
            before, (_, energy) = replicas.swaps.clone(), replicas.sweep()
            tried, accepted = (replicas.swaps - before)[:, 2].tolist()
            if tried:
                outcomes.append(accepted)
                assert accepted == (energy[2 + cold] > energy[3 - cold])
    assert {0, 1} == set(outcomes)


# ---- ASE


@pytest.mark.adapters
@pytest.mark.parametrize("workers", [0, 2])
def test_a_cluster_by_ase(ase: ModuleType, workers: int, tmp_path: Path) -> None:
    from ase.calculators.lj import LennardJones

    positions = 1.1 * torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=torch.float64)
    atoms = ase.Atoms("Ar4", positions=positions.numpy(), calculator=LennardJones(rc=100.0))
    target = ASETarget(atoms, temperature=5000.0, workers=workers)
    assert target.dim == 12 and target.space.identical and target.space.isotropic
    x = near(positions, 0.03, 6)

    def pairs(x: Tensor) -> Tensor:
        r = torch.stack([distance(x.unflatten(-1, (4, 3)), *torch.tensor(ij)) for ij in PAIRS])
        return (4 * (r**-12 - r**-6) - 4 * (100.0**-12 - 100.0**-6)).sum(0)

    # Boltzmann's constant in eV / K (SI, 2019).
    torch.testing.assert_close(target.log_prob(x), -pairs(x) / (8.617333262e-5 * 5000), rtol=1e-6, atol=1e-6)
    y = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(-pairs(y).sum() / (8.617333262e-5 * 5000), y)
    torch.testing.assert_close(target.score(x), gradient, rtol=1e-6, atol=1e-6)
    file = tmp_path / "cluster.xyz"
    atoms.write(file)
    named = ASETarget(str(file), "ase.calculators.lj.LennardJones", {"rc": 100.0}, temperature=5000.0)
    torch.testing.assert_close(named.log_prob(x), target.log_prob(x))


PAIRS = [(i, j) for i in range(4) for j in range(i + 1, 4)]


@pytest.mark.adapters
def test_atoms_that_are_no_density_are_refused(ase: ModuleType, tmp_path: Path) -> None:
    from ase.build import molecule
    from ase.calculators.emt import EMT
    from ase.constraints import FixAtoms

    water, fixed, box = molecule("H2O"), molecule("H2O"), molecule("H2O", vacuum=3.0, pbc=True)
    fixed.set_constraint(FixAtoms([0]))
    (tmp_path / "no.xyz").write_text("nothing\n")
    cases = [
        ((water,), "with a calculator"),
        ((fixed, EMT()), "no constraints"),
        ((box, EMT()), "no periodic directions"),
        ((3, EMT()), "ase.Atoms or a file"),
        ((str(tmp_path / "no.xyz"), EMT()), "a file that ASE reads"),
        ((water, "ase.calculators.emt.EMTT"), "EMTT"),
        ((water, "ase.calculators.nothing.EMT"), "needs ase"),
    ]
    for arguments, words in cases:
        with pytest.raises(InputError, match=words):
            ASETarget(*arguments)
    assert not ASETarget(water, EMT()).space.identical
