"""Tokens of a language, as seen from another one: what a penalty on their probability acts on.

Where the scripts of the two languages differ, a token is foreign that has a character of a script the target is written
in and the row's language is not. Parts of characters (bytes of one that the vocabulary does not have whole) have no
script and are not foreign.

Where the scripts are the same, only use tells them apart: a token is foreign that makes up at least ten times the share
of the target language's answers than of the row's language's, and stands at least five times in the former. Both are
counted in the answers of the training rows, so there must be rows in the target language.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from qscope.errors import UserError
from qscope.models.prompts import special_ids
from qscope.posttraining.code_switching import language_code
from qscope.posttraining.examples import Example
from qscope.text.scripts import SCRIPTS_OF, script_runs

#: How much more of the target's answers a token must be, and how often it must be seen there.
RATIO, SEEN = 10.0, 5


def foreign_tokens(
    tokenizer: Any, rows: Sequence[Example], languages: Sequence[str], targets: Sequence[str], *, at: str
) -> Tensor:
    """``held_GV``: for rows of each language, which tokens of the target languages are foreign to it, bool.

    A row's own language is never foreign to it.

    Args:
        tokenizer: of the model.
        rows: that use is counted in.
        languages: G of them.
        targets: the languages whose tokens are looked for.
        at: experiment field of the targets, for errors.

    Raises:
        UserError: a language whose script is not known (LANGUAGE_UNKNOWN), or a target that is written like the
            language of some rows and has no rows itself (VOCABULARY_UNKNOWN).
    """
    width = len(tokenizer)
    scripts = [_scripts(tokenizer.decode([index])) for index in range(width)]
    plain_V = torch.ones(width, dtype=torch.bool)
    plain_V[sorted(special_ids(tokenizer))] = False
    counts: dict[str, Tensor] = {}
    held_GV = torch.zeros(len(languages), width, dtype=torch.bool)
    for index, target in enumerate(targets):
        field = f"{at}[{index}]"
        own = SCRIPTS_OF[language_code(target, at=field)]
        for row, language in enumerate(languages):
            if language == target:
                continue
            foreign = own - SCRIPTS_OF[language_code(language, at=field)]
            if foreign:
                held_GV[row] |= torch.tensor([bool(found & foreign) for found in scripts])
            else:
                held_GV[row] |= _by_use(rows, target, language, counts, width, field)
    return held_GV & plain_V


def _scripts(text: str) -> frozenset[str]:
    return frozenset(run.script for run in script_runs(text))


def _by_use(
    rows: Sequence[Example], target: str, language: str, counts: dict[str, Tensor], width: int, field: str
) -> Tensor:
    for name in (target, language):
        if name not in counts:
            ids = [
                token
                for row in rows
                if row.language == name
                for token, flag in zip(row.ids, row.answer, strict=True)
                if flag
            ]
            counts[name] = torch.bincount(torch.tensor(ids, dtype=torch.int64), minlength=width).double()
    theirs_V, own_V = counts[target], counts[language]
    if not theirs_V.sum():
        raise UserError(
            f"{target!r} is written like {language!r}, and no row is in it: nothing says which tokens are its own.",
            remedy=f"Add rows in {target!r}, or leave this arm out.",
            reason="VOCABULARY_UNKNOWN",
            field=field,
        )
    # Half a token more: what was never seen may yet be said.
    share_V = theirs_V / theirs_V.sum()
    own_share_V = (own_V + 0.5) / (own_V.sum() + 0.5)
    return (theirs_V >= SEEN) & (share_V >= RATIO * own_share_V)
