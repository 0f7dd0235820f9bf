"""One recipe per verb; each reads like the algorithm it runs.

A recipe takes a :class:`qscope.runs.RunContext`, calls the library top down, and reports only through that context.
"""

from __future__ import annotations

#: Field of ``Experiment.task`` to ``module:function``; imported only when a run needs it.
RECIPES: dict[str, str] = {
    "train_sae": "qscope.recipes.train_sae:run",
    "eval_sae": "qscope.recipes.eval_sae:run",
    "extract_features": "qscope.recipes.extract_features:run",
    "contrast_features": "qscope.recipes.contrast_features:run",
    "top_features": "qscope.recipes.top_features:run",
    "language_features": "qscope.recipes.language_features:run",
    "repetition_features": "qscope.recipes.repetition_features:run",
    "diagnose_features": "qscope.recipes.diagnose_features:run",
    "explain_features": "qscope.recipes.explain_features:run",
    "steer": "qscope.recipes.steer:run",
    "bench_redundancy": "qscope.recipes.bench_redundancy:run",
    "classify": "qscope.recipes.classify:run",
    "apply_classifier": "qscope.recipes.apply_classifier:run",
    "synthesize": "qscope.recipes.synthesize:run",
    "sft": "qscope.recipes.sft:run",
    "rl": "qscope.recipes.rl:run",
    "eval_responses": "qscope.recipes.eval_responses:run",
}
