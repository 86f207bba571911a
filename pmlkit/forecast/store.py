# SPDX-License-Identifier: Apache-2.0
"""Fitted forecasters as files: skops, with the digest of the data that they were fitted on.

A pickle runs whatever code its writer put in. skops says which types a file holds, and builds only
those that it is told to trust: here, the parts of our own models and nothing else.
"""

from dataclasses import dataclass
from pathlib import Path

from pmlkit.errors import OutputExists, PmlkitError, output_error
from pmlkit.forecast.forecaster import Forecaster

__all__ = ["ModelRefused", "Saved", "load", "save"]

FORMAT = "pmlkit-forecaster"
VERSION = 1
# What skops does not trust by itself, and our models consist of.
TRUSTED = (
    "pmlkit.forecast.models.BoostedQuantiles",
    "pmlkit.forecast.models.LinearQuantiles",
    "numpy.dtype",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.feature_selection._univariate_selection.f_regression",
)


class ModelRefused(PmlkitError):
    """The file is no forecaster that may be loaded. Attributes: `path`, `why`."""

    def __init__(self, path, why):
        self.path, self.why = str(path), why
        super().__init__(
            f"the model {path} is refused ({why})", "make one with `pmlkit forecast TRACE --save`"
        )


@dataclass(frozen=True)
class Saved:
    """A forecaster and where it comes from.

    Attributes
    ----------
    forecaster : Forecaster
    window : str
        The window T that it forecasts.
    data : dict of str to str
        Digest (`Log.digest`) of each log that it was fitted on, by name.
    versions : dict of str to str
        Of pmlkit and scikit-learn that wrote it.
    """

    forecaster: Forecaster
    window: str
    data: dict
    versions: dict


def save(forecaster, path, window, data, overwrite=False):
    """Write a fitted forecaster.

    Parameters
    ----------
    forecaster : Forecaster
    path : path-like
    window : str
    data : dict of str to str
        Digest of each log, by name.
    overwrite : bool

    Raises
    ------
    OutputExists, OutputError
    """
    import sklearn
    import skops.io

    import pmlkit

    path = Path(path)
    if path.exists() and not overwrite:
        raise OutputExists(path)
    document = {
        "format": FORMAT,
        "version": VERSION,
        "window": str(window),
        "data": dict(data),
        "versions": {"pmlkit": pmlkit.__version__, "scikit-learn": sklearn.__version__},
        "forecaster": {
            "horizon": forecaster.horizon,
            "target": forecaster.target,
            "online": forecaster.online,
            "eta": forecaster.eta,
            "taus": forecaster.taus_,
            "shift": forecaster.shift_,
            "spread": forecaster.spread_,
            "model": forecaster.model_,
        },
    }
    content = skops.io.dumps(document)
    try:
        path.write_bytes(content)
    except OSError as error:
        raise output_error(path, error) from error


def load(path):
    """Read a forecaster that `save` wrote.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    Saved

    Raises
    ------
    ModelRefused
        If the file is something else, of another version, or holds types that are none of ours.
    """
    import skops.io

    path = Path(path)
    if not path.is_file():
        raise ModelRefused(path, "there is no such file")
    try:
        foreign = set(skops.io.get_untrusted_types(file=path)) - set(TRUSTED)
        if foreign:
            raise ModelRefused(path, f"it holds {', '.join(sorted(foreign))}")
        document = skops.io.load(path, trusted=list(TRUSTED))
    except ModelRefused:
        raise
    except Exception as error:  # skops raises what zipfile, json and the classes raise
        raise ModelRefused(path, f"it cannot be read: {type(error).__name__}") from error
    return _checked(path, document)


def _checked(path, document):
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ModelRefused(path, "it is no forecaster of pmlkit")
    if document["version"] != VERSION:
        raise ModelRefused(path, f"its version is {document['version']}, not {VERSION}")
    facts = document["forecaster"]
    forecaster = Forecaster(facts["model"], facts["horizon"], facts["target"], facts["online"],
                            facts["eta"])  # fmt: skip
    forecaster.model_, forecaster.taus_ = facts["model"], facts["taus"]
    forecaster.shift_, forecaster.spread_ = facts["shift"], facts["spread"]
    return Saved(forecaster, document["window"], document["data"], document["versions"])
