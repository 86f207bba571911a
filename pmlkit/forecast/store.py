# SPDX-License-Identifier: Apache-2.0
"""Fitted forecasters as files: skops, with the digests of their training data.

A pickle runs any code that its writer inserted. skops lists the types in a file, and creates only
those that the reader trusts: here, the parts of our own models.
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

    from pmlkit.types import Json, PathLike

__all__ = ["ModelRefused", "Saved", "load", "save"]

FORMAT = "pmlkit-forecaster"
VERSION = 3
MAX_BYTES = 64 << 20
MAX_UNPACKED_BYTES = 128 << 20
# Parts of our models that skops does not trust by default.
TRUSTED = (
    "pmlkit.forecast.models.BoostedQuantiles",
    "pmlkit.forecast.models.LinearQuantiles",
    "numpy.dtype",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.feature_selection._univariate_selection.f_regression",
)


class ModelRefused(PmlkitError):
    """The file is not a forecaster that may be loaded. Attributes: `path`, `why`."""

    def __init__(self, path: PathLike, why: str) -> None:
        self.path, self.why = str(path), why
        super().__init__(
            f"the model {path} is refused ({why})", "make one with `pmlkit forecast TRACE --save`"
        )


@dataclass(frozen=True)
class Saved:
    """A forecaster and its origin.

    Attributes
    ----------
    forecaster : Forecaster or Pooled
    window : str
        The window T of its forecasts.
    inputs, measures : str
        The input and the forecast quantity of the logs (`log.Log`) of its training.
    data : dict of str to str
        Digest (`Log.digest`) of each log that it was fitted on, by name.
    versions : dict of str to str
        Versions of pmlkit and scikit-learn that wrote it.
    """

    forecaster: Forecaster | Pooled
    window: str | int
    data: dict[str, str]
    versions: dict[str, str]
    inputs: str = "pml"
    measures: str = "written"


def save(
    forecaster: Forecaster | Pooled,
    path: PathLike,
    window: str | int,
    data: Mapping[str, str],
    overwrite: bool = False,
    inputs: str = "pml",
    measures: str = "written",
) -> None:
    """Write a fitted forecaster, and in `data` the digest of each training log, by name.

    `inputs` and `measures` are those of these logs.

    Raises
    ------
    OutputExists, OutputError
    """
    import sklearn
    import skops.io

    from pmlkit import __version__

    pooled = forecaster if isinstance(forecaster, Pooled) else None
    base = forecaster.base if isinstance(forecaster, Pooled) else forecaster
    document = {
        "format": FORMAT,
        "version": VERSION,
        "window": str(window),
        "inputs": inputs,
        "measures": measures,
        "data": dict(data),
        "versions": {"pmlkit": __version__, "scikit-learn": sklearn.__version__},
        "forecaster": {
            **_calibration(base),
            "horizon": base.horizon,
            "target": base.target,
            "model": base.model_,
        },
        "pooled": pooled
        and {**_calibration(pooled), "bandwidth": pooled.bandwidth_, "share": pooled.share_},
    }
    content = skops.io.dumps(document)
    with whole(Path(path), overwrite) as partial:
        partial.write_bytes(content)


# Attributes of a calibrated forecaster by their names in a file.
CALIBRATION = {
    "online": "online",
    "eta": "eta",
    "taus": "taus_",
    "shift": "shift_",
    "spread": "spread_",
}


def _calibration(forecaster: Forecaster | Pooled) -> Json:
    return {name: getattr(forecaster, attribute) for name, attribute in CALIBRATION.items()}


def _calibrate(forecaster: Forecaster | Pooled, fields: Json) -> None:
    for name, attribute in CALIBRATION.items():
        setattr(forecaster, attribute, fields[name])


def load(path: PathLike) -> Saved:
    """Read a forecaster that `save` wrote.

    Raises
    ------
    ModelRefused
        If the file has other content, has another version, or contains foreign types.
    """
    import skops.io

    path = Path(path)
    if not path.exists():
        raise ModelRefused(path, "there is no such file")
    try:
        data = read_regular(path, MAX_BYTES)
        _check_unpacked(path, data)
        foreign = set(skops.io.get_untrusted_types(data=data)) - set(TRUSTED)
        if foreign:
            raise ModelRefused(path, f"it holds {', '.join(sorted(foreign))}")
        return _restore(path, skops.io.loads(data, trusted=list(TRUSTED)))
    except ModelRefused:
        raise
    except FileRefused as error:
        raise ModelRefused(path, error.why) from error
    except OSError as error:
        why = f"cannot read the model {path} ({error.strerror})"
        raise PmlkitError(why, "check its permissions and its disk") from error
    except Exception as error:  # skops raises what zipfile, json and the classes raise
        raise ModelRefused(path, f"it cannot be read: {type(error).__name__}") from error


def _check_unpacked(path: PathLike, data: bytes) -> None:
    """Refuse a file if the declared sizes of its members exceed the limit."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        total = sum(member.file_size for member in archive.infolist())
    if total > MAX_UNPACKED_BYTES:
        most = f"the limit is {MAX_UNPACKED_BYTES >> 20}"
        raise ModelRefused(path, f"it would unpack to {total >> 20:,} MiB, and {most}")


def _restore(path: PathLike, document: object) -> Saved:
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ModelRefused(path, "it is not a forecaster of pmlkit")
    if document["version"] != VERSION:
        raise ModelRefused(path, f"its version is {document['version']}, not {VERSION}")
    fields, pooled = document["forecaster"], document["pooled"]
    base = Forecaster(fields["model"], fields["horizon"], fields["target"])
    base.model_ = fields["model"]
    _calibrate(base, fields)
    forecaster: Forecaster | Pooled = base
    if pooled:
        forecaster = Pooled(base, bandwidth_=pooled["bandwidth"], share_=pooled["share"])
        _calibrate(forecaster, pooled)
    facts = (document[name] for name in ("window", "data", "versions", "inputs", "measures"))
    return Saved(forecaster, *facts)
