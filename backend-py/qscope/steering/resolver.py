"""Specs to numbers for one model and one set of SAEs: files are read, units are measured, once for each."""

from __future__ import annotations

from qscope.models import LoadedModel
from qscope.steering.calibration import measure_scales
from qscope.steering.feature_file import expand_feature_files
from qscope.steering.resolve import ResolvedSpec, refuse_unknown, resolve
from qscope.steering.saes import Saes
from qscope.steering.scales import Scales
from qscope.v1 import steering_pb2 as pb


class SpecResolver:
    """Resolves specs and remembers what was measured for them.

    Args:
        loaded: the model.
        saes: the SAEs that features belong to.
    """

    def __init__(self, loaded: LoadedModel, saes: Saes) -> None:
        self._loaded, self.saes = loaded, saes
        self.scales = Scales()

    def expand(self, spec: pb.SteeringSpec, *, at: str) -> pb.SteeringSpec:
        """The spec with its feature files read, its layers and features checked.

        Raises:
            UserError: see :func:`expand_feature_files` and :func:`refuse_unknown`.
        """
        facts = self._loaded.facts
        # Before the files are read: a wrong layer is the likelier mistake, and its place is still that of the file.
        refuse_unknown(spec, n_layers=facts.n_layers, saes=self.saes, at=at)
        expanded, known = expand_feature_files(spec, d_model=facts.d_model, saes=self.saes, at=at)
        self.scales.add(known)
        return expanded

    def resolve(self, spec: pb.SteeringSpec, *, at: str) -> ResolvedSpec:
        """Numbers of an expanded spec; measures the units it names when nobody has.

        Raises:
            UserError: see :func:`resolve`.
        """
        layers, features = self.scales.missing(spec)
        if layers or features:
            self.scales.add(measure_scales(self._loaded, layers, features, self.saes))
        facts = self._loaded.facts
        return resolve(spec, n_layers=facts.n_layers, d_model=facts.d_model, saes=self.saes, scales=self.scales, at=at)
