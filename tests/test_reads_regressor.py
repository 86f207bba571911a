# SPDX-License-Identifier: Apache-2.0
from sklearn.utils.estimator_checks import parametrize_with_checks

from pmlkit.reads_regressor import DensityRegressor


@parametrize_with_checks([DensityRegressor()])
def test_scikit_learns_contract(estimator, check):
    check(estimator)
