"""Linear models with a penalty, by scikit-learn, which is an extra: `pip install 'sg3cli[train]'`."""

from __future__ import annotations

import warnings
from importlib.util import find_spec

import numpy as np

PENALTIES = 10.0 ** np.linspace(0, -2.5, 16)  # of the least penalty that leaves no weight, tried in this order
FOLDS = 3  # of the cross-validation that chooses one


def missing() -> str | None:
    """Why there are no such models here, or None."""
    return None if find_spec("sklearn") is not None else "scikit-learn is not installed (pip install scikit-learn)"


def separating_plane(x: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights [d] and bias of a linear support vector machine (C = 1): x [N,d] of `labels` [N] true lie above 0."""
    from sklearn.svm import SVC

    machine = SVC(kernel="linear", C=1.0).fit(x, labels)
    return machine.coef_[0], float(machine.intercept_[0])


def sparse_weights(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Weights [d] of a lasso of y [N] on x [N,d], both centred; its penalty is chosen by cross-validation."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LassoCV

    most = float(np.abs(x.T @ y).max()) / len(y)
    if most < 1e-12:
        return np.zeros(x.shape[1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # at the smallest penalties, which are not chosen then
        model = LassoCV(alphas=most * PENALTIES, cv=FOLDS, fit_intercept=False, tol=1e-3, max_iter=2000).fit(x, y)
    return np.asarray(model.coef_)
