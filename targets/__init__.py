"""Ready-made targets, one file each. A new one is a subclass of `diffsampler.target.Target` and one line here."""

from targets.alanine_dipeptide import AlanineDipeptide
from targets.ase_target import ASETarget
from targets.breast_cancer import BreastCancer
from targets.cox_process import CoxProcess
from targets.double_well import DoubleWell
from targets.double_well_4 import DoubleWell4
from targets.force_field_target import ForceFieldTarget
from targets.funnel import Funnel
from targets.gaussian import Gaussian
from targets.gaussian_mixture import GaussianMixture, GaussianMixture9, GaussianMixture25, GaussianMixture40
from targets.lennard_jones import LennardJones
from targets.logistic_regression import LogisticRegression
from targets.many_well import ManyWell
from targets.mueller_brown import MuellerBrown
from targets.openmm_target import OpenMMTarget
from targets.phi4 import Phi4
from targets.phi4_hopping import Phi4Hopping
from targets.u1_gauge import U1Gauge
from targets.von_mises import VonMisesMixture
from targets.xy_model import XYModel

__all__ = [
    "ASETarget",
    "AlanineDipeptide",
    "BreastCancer",
    "CoxProcess",
    "DoubleWell",
    "DoubleWell4",
    "ForceFieldTarget",
    "Funnel",
    "Gaussian",
    "GaussianMixture",
    "GaussianMixture25",
    "GaussianMixture40",
    "GaussianMixture9",
    "LennardJones",
    "LogisticRegression",
    "ManyWell",
    "MuellerBrown",
    "OpenMMTarget",
    "Phi4",
    "Phi4Hopping",
    "U1Gauge",
    "VonMisesMixture",
    "XYModel",
]
