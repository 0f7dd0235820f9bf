"""Puts the tests' recipe in the place of a real one, in every process whose PYTHONPATH names this folder."""

import os
import sys

import qscope.recipes

qscope.recipes.RECIPES["train_sae"] = "recipes_for_tests:run"

if "qscope.execute" in sys.orig_argv and "TEST_JOB_EXITS" in os.environ:
    print("the job cannot start", flush=True)
    os._exit(int(os.environ["TEST_JOB_EXITS"]))
