"""What can be told of a text without a model: repetition, language, script, the answer in it. Imports no torch."""
