"""Generated messages of the contract (package qscope.v1). Regenerate with `npm run generate`."""
