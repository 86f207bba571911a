# SPDX-License-Identifier: Apache-2.0
"""Fitted forecasters as files: skops, with the digest of the data that they were fitted on.

A pickle runs whatever code its writer put in. skops says which types a file holds, and builds only
those that it is told to trust: here, the parts of our own models and nothing else.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pmlkit.errors import FileRefused, PmlkitError
from pmlkit.files import read_regular, whole
from pmlkit.forecast.analogs import Pooled
from pmlkit.forecast.forecaster import Forecaster

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from pmlkit.forecast.forecaster import Calibrated
    from pmlkit.types import Json, PathLike


__all__ = ["ModelRefused", "Saved", "load", "save"]

FORMAT = "pmlkit-forecaster"
VERSION = 2
LIMIT_BYTES = 64 << 20
LIMIT_UNPACKED_BYTES = 128 << 20
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

    def __init__(self, path: PathLike, why: str) -> None:
        self.path, self.why = str(path), why
        super().__init__(
            f"the model {path} is refused ({why})", "make one with `pmlkit forecast TRACE --save`"
        )


@dataclass(frozen=True)
class Saved:
    """A forecaster and where it comes from.

    Attributes
    ----------
    forecaster : Forecaster or Pooled
    window : str
        The window T that it forecasts.
    data : dict of str to str
        Digest (`Log.digest`) of each log that it was fitted on, by name.
    versions : dict of str to str
        Of pmlkit and scikit-learn that wrote it.
    """

    forecaster: Forecaster | Pooled
    window: str | int
    data: Json
    versions: Json


def save(
    forecaster: Forecaster | Pooled,
    path: PathLike,
    window: str | int,
    data: Mapping[str, str],
    overwrite: bool = False,
) -> None:
    """Write a fitted forecaster.

    Parameters
    ----------
    forecaster : Forecaster or Pooled
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

    from pmlkit import __version__

    path = Path(path)
    own = forecaster if isinstance(forecaster, Pooled) else None
    base = own.base if own else forecaster
    document = {
        "format": FORMAT,
        "version": VERSION,
        "window": str(window),
        "data": dict(data),
        "versions": {"pmlkit": __version__, "scikit-learn": sklearn.__version__},
        "forecaster": {
            **_facts(base),
            "horizon": base.horizon,
            "target": base.target,
            "model": base.model_,  # type: ignore[union-attr]
        },
        "pooled": own and {**_facts(own), "bandwidth": own.bandwidth_, "share": own.share_},
    }
    content = skops.io.dumps(document)
    with whole(path, overwrite) as partial:
        partial.write_bytes(content)


FACTS = {"online": "online", "eta": "eta", "taus": "taus_", "shift": "shift_", "spread": "spread_"}


def _facts(forecaster: Calibrated) -> Json:
    return {name: getattr(forecaster, attribute) for name, attribute in FACTS.items()}


def _restore(forecaster: Calibrated, facts: Json) -> None:
    for name, attribute in FACTS.items():
        setattr(forecaster, attribute, facts[name])


def load(path: PathLike) -> Saved:
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
    if not path.exists():
        raise ModelRefused(path, "there is no such file")
    try:
        data = read_regular(path, LIMIT_BYTES)
        _check_unpacked(path, data)
        foreign = set(skops.io.get_untrusted_types(data=data)) - set(TRUSTED)
        if foreign:
            raise ModelRefused(path, f"it holds {', '.join(sorted(foreign))}")
        return _checked(path, skops.io.loads(data, trusted=list(TRUSTED)))
    except ModelRefused:
        raise
    except FileRefused as error:
        raise ModelRefused(path, error.why) from error
    except Exception as error:  # skops raises what zipfile, json and the classes raise
        raise ModelRefused(path, f"it cannot be read: {type(error).__name__}") from error


def _check_unpacked(path: PathLike, data: bytes) -> None:
    """Refuse what would unpack to more than is taken in; no member unpacks to more than it says."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        total = sum(member.file_size for member in archive.infolist())
    if total > LIMIT_UNPACKED_BYTES:
        most = f"at most {LIMIT_UNPACKED_BYTES >> 20} are read"
        raise ModelRefused(path, f"it would unpack to {total >> 20:,} MiB, and {most}")


def _checked(path: PathLike, document: Any) -> Saved:
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ModelRefused(path, "it is no forecaster of pmlkit")
    if document["version"] != VERSION:
        raise ModelRefused(path, f"its version is {document['version']}, not {VERSION}")
    facts, own = document["forecaster"], document["pooled"]
    base = Forecaster(facts["model"], facts["horizon"], facts["target"])
    base.model_ = facts["model"]
    _restore(base, facts)
    forecaster: Forecaster | Pooled = base
    if own:
        forecaster = Pooled(base, bandwidth_=own["bandwidth"], share_=own["share"])
        _restore(forecaster, own)
    return Saved(forecaster, document["window"], document["data"], document["versions"])
