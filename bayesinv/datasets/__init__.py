"""Data sets: the bundled digits, sinusoids, images, molecules, EEG, tables; files and folders of the user.

Nothing is downloaded. Large data sets are looked for under the folder that the environment variable
``BAYESINV_DATA`` names (`data_root`).
"""

from bayesinv.datasets.characters import default_pictures, mario_iggy
from bayesinv.datasets.cifar import cifar10
from bayesinv.datasets.columns import load_table
from bayesinv.datasets.files import IMAGE_SUFFIXES, load_image_folder, load_npz
from bayesinv.datasets.handwritten import digits, fashion_mnist, mnist
from bayesinv.datasets.molecules import qm9
from bayesinv.datasets.nuclei import nuclei
from bayesinv.datasets.signals import SINUSOID_FREQUENCIES, SLEEP_STAGES, sinusoids, sleep_edf
from bayesinv.datasets.split import Examples, Split, data_root
from bayesinv.datasets.toy_molecules import toy_molecules
from bayesinv.datasets.uci import UCI_COLUMNS, uci

__all__ = [
    "IMAGE_SUFFIXES",
    "SINUSOID_FREQUENCIES",
    "SLEEP_STAGES",
    "UCI_COLUMNS",
    "Examples",
    "Split",
    "cifar10",
    "data_root",
    "default_pictures",
    "digits",
    "fashion_mnist",
    "load_image_folder",
    "load_npz",
    "load_table",
    "mario_iggy",
    "mnist",
    "nuclei",
    "qm9",
    "sinusoids",
    "sleep_edf",
    "toy_molecules",
    "uci",
]
