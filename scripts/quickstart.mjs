// Trains SAEs on every layer of the embedded model, evaluates them, and says what to type next.
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
process.chdir(root);
const started = Date.now();
process.stderr.write('quickstart: SAEs on every layer of the embedded Qwen3, about a minute on two cores\n\n');
const { main } = await import('../cli/dist/main.js');
await main(['node', 'qscope', 'train-sae', 'configs/embedded/quickstart.yaml', ...process.argv.slice(2)]);
if (!process.exitCode) {
  process.stderr.write(`
quickstart: done in ${((Date.now() - started) / 1000).toFixed(0)} s. Next:

  npx qscope plan configs/embedded/train-sae.yaml        what the 5-million-token run needs
  npx qscope train-sae configs/embedded/train-sae.yaml   run it
  npx qscope config init train-sae -o my.yaml            an experiment of your own, every field explained
  npx qscope runs list                                   what has run so far
`);
}
