"""Specs to numbers for one model and one set of SAEs: units are measured once for each, files are read every time."""

from __future__ import annotations

from collections.abc import Callable

from qscope.models import LoadedModel
from qscope.steering.calibration import measure_scales
from qscope.steering.feature_file import expand_feature_files
from qscope.steering.resolve import ResolvedSpec, refuse_unknown, resolve
from qscope.steering.saes import Saes
from qscope.steering.scales import Scales
from qscope.steering.where import token_ids
from qscope.v1 import steering_pb2 as pb


class SpecResolver:
    """Resolves specs and remembers what was measured for them.

    What a feature file says belongs to the spec that names the file: kept here, it would change what the next spec
    means, and a warm model serves many clients.

    Args:
        loaded: the model.
        saes: the SAEs that features belong to.

    Attributes:
        measured: what was measured so far; 0 for a feature that stayed silent.
    """

    def __init__(self, loaded: LoadedModel, saes: Saes) -> None:
        self._loaded, self.saes = loaded, saes
        self.measured = Scales()

    def expand(self, spec: pb.SteeringSpec, *, at: str) -> tuple[pb.SteeringSpec, Scales]:
        """The spec with its feature files read, its layers, features and tokens checked, and what the files know of
        units.

        Raises:
            UserError: see :func:`expand_feature_files`, :func:`refuse_unknown` and
                :func:`qscope.steering.where.token_ids`.
        """
        facts = self._loaded.facts
        # Before the files are read: a wrong layer is the likelier mistake, and its place is still that of the file.
        refuse_unknown(spec, n_layers=facts.n_layers, saes=self.saes, at=at)
        for index, edit in enumerate(spec.edits):
            # A batch asks again, but only when texts are made, and it does not know where the spec stands.
            token_ids(edit.where, self._loaded.tokenizer, at=f"{at}.edits[{index}].where")
        return expand_feature_files(spec, d_model=facts.d_model, saes=self.saes, at=at)

    def resolve(
        self,
        spec: pb.SteeringSpec,
        known: Scales,
        *,
        at: str,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> ResolvedSpec:
        """Numbers of an expanded spec; measures the units it names when neither its files nor an earlier spec tell.

        Args:
            spec: the spec.
            known: what its own feature files say, which goes before what was measured.
            at: field of the spec, for errors.
            should_stop: asked between the batches of a measurement.

        Raises:
            UserError: see :func:`resolve`.
            Stopped: when asked to stop; nothing is remembered of the measurement.
        """
        layers, features = known.missing(spec)
        layers = [layer for layer in layers if layer not in self.measured.median_norm]
        features = [pair for pair in features if pair not in self.measured.max_activation]
        if layers or features:
            self.measured.add(measure_scales(self._loaded, layers, features, self.saes, should_stop=should_stop))
        facts, scales = self._loaded.facts, self.scales(known)
        return resolve(spec, n_layers=facts.n_layers, d_model=facts.d_model, saes=self.saes, scales=scales, at=at)

    def scales(self, known: Scales) -> Scales:
        """What strengths are measured against for a spec whose feature files say ``known``."""
        table = Scales()
        table.add(known)
        table.add(self.measured)
        return table
